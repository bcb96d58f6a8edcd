// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames on a stream. A frame's announced length is checked before anything is allocated, and
//! memory grows with the bytes that really came: a peer that opens streams and announces frames
//! it never sends holds nothing.

use quinn::{ReadError, ReadExactError, RecvStream};
use serde::de::DeserializeOwned;
use supernode_protocol::wire::{FRAME_PREFIX_BYTES, FrameError, decode_frame, decode_prefix};

/// Why no frame could be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FrameReadError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside the frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The stream or its connection broke.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reads one frame and leaves the stream at the first byte after it.
///
/// # Errors
/// [`FrameReadError`]; afterwards the stream is good for nothing but closing.
pub async fn read_frame<T: DeserializeOwned>(recv: &mut RecvStream) -> Result<T, FrameReadError> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    recv.read_exact(&mut prefix).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => FrameReadError::Truncated,
        ReadExactError::ReadError(error) => error.into(),
    })?;
    let len = decode_prefix(prefix)?;
    let mut body = Vec::new();
    while body.len() < len {
        let chunk = recv.read_chunk(len - body.len(), true).await?;
        body.extend_from_slice(&chunk.ok_or(FrameReadError::Truncated)?.bytes);
    }
    Ok(decode_frame(&body)?)
}

/// Whether the stream ends here. Bytes that follow are left unread.
///
/// # Errors
/// When the stream or its connection broke.
pub async fn at_end(recv: &mut RecvStream) -> Result<bool, ReadError> {
    Ok(recv.read_chunk(1, true).await?.is_none())
}
