// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answering challenges: proofs from the disk, one transaction for many.

use crate::audits::Answered;
use crate::chain::{Chain, Challenge};
use crate::cursor::Bookmark;
use crate::jobs::Tools;
use crate::keeper::Keeper;

impl<C: Chain, K: Keeper, B: Bookmark> Tools<C, K, B> {
    /// Proves in the order given until the transaction is full, and submits what there is.
    pub(crate) async fn answer(&self, batch: Vec<Challenge>) -> Answered {
        let mut answered = Answered::default();
        let mut proofs = Vec::new();
        let mut bytes = 0;
        let mut full = false;
        for challenge in batch {
            // The next block is the first that a proof can be in; while others were made, this
            // one's time may have passed.
            let overtaken = self.chain.watch().borrow().best.height >= challenge.deadline;
            if full || overtaken {
                answered.unsent.push(challenge);
                continue;
            }
            match self.keeper.prove(challenge.clone()).await {
                Ok(proof) => {
                    let fits = bytes + proof.len() <= self.config.batch_bytes_max;
                    if fits || proofs.is_empty() {
                        bytes += proof.len();
                        proofs.push((challenge.audit, proof));
                        answered.sent.push(challenge);
                    } else {
                        full = true;
                        answered.unsent.push(challenge);
                    }
                }
                Err(error) => answered.unprovable.push((challenge, error)),
            }
        }
        if !proofs.is_empty() {
            answered.outcome = Some(self.chain.submit(proofs).await);
        }
        answered
    }
}
