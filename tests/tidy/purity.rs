// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules that must decide without looking: no clock, no disk, no network, no randomness of
//! their own. Time and randomness reach them as arguments.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::Remark;
use crate::tokens::{each_run, is_punct, line, reads};

/// What a pure module may not name, and what it does instead.
const IMPURE: [(&[&str], &str); 18] = [
    (&["tokio"], "no runtime: be called by one"),
    (&["quinn"], "no sockets: take and give bytes"),
    (&["std", ":", ":", "fs"], "no files: take and give bytes"),
    (&["std", ":", ":", "env"], "no environment: take an argument"),
    (&["std", ":", ":", "process"], "no processes: return a value"),
    (&["std", ":", ":", "thread"], "no threads: be called by one"),
    (&["TcpStream"], "no sockets: take and give bytes"),
    (&["TcpListener"], "no sockets: take and give bytes"),
    (&["UdpSocket"], "no sockets: take and give bytes"),
    (&["UnixStream"], "no sockets: take and give bytes"),
    (&["ToSocketAddrs"], "no name lookups: take an address"),
    (&["SystemTime"], "no clock: take the time as an argument"),
    (&["Instant"], "no clock: take the time as an argument"),
    (&["getrandom"], "no randomness: take bytes or a generator"),
    (&["thread_rng"], "no randomness: take bytes or a generator"),
    (&["OsRng"], "no randomness: take bytes or a generator"),
    (&["rand", ":", ":", "rng"], "no randomness: take bytes or a generator"),
    (&["rand", ":", ":", "random"], "no randomness: take bytes or a generator"),
];

/// The opening words by which a module declares itself pure; it is then held to it.
const DECLARATION: &str = "//! Pure:";

/// Whether the module says of itself that it is pure.
pub fn declares_purity(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(DECLARATION))
}

/// Every name in `code` that a pure module may not use.
pub fn impurities(code: &TokenStream) -> Vec<Remark> {
    let mut remarks = Vec::new();
    each_run(code, &mut |run| {
        for at in 0..run.len() {
            remarks.extend(impure_name(run, at));
            for path in grouped_paths(run, at) {
                // Its tail is seen by itself; what the group hides is where it hangs.
                remarks.extend(impure_name(&path, 0));
            }
        }
    });
    remarks
}

fn impure_name(run: &[TokenTree], at: usize) -> Option<Remark> {
    let (words, instead) = IMPURE.iter().find(|(words, _)| reads(run, at, words))?;
    let message = format!("`{}` in a pure module: {instead}", words.concat());
    Some(Remark::new(line(&run[at]), message))
}

/// `std::{fs, io}` at `at` as `std::fs` and `std::io`.
fn grouped_paths(run: &[TokenTree], at: usize) -> Vec<Vec<TokenTree>> {
    let [_, first, second, TokenTree::Group(group)] = &run[at..run.len().min(at + 4)] else {
        return Vec::new();
    };
    let path = is_punct(first, ':') && is_punct(second, ':');
    if !path || group.delimiter() != Delimiter::Brace {
        return Vec::new();
    }
    let members: Vec<TokenTree> = group.stream().into_iter().collect();
    let members = members.split(|token| is_punct(token, ','));
    members.map(|member| [&run[at..at + 3], member].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::{IMPURE, declares_purity, impurities};

    #[test]
    fn every_impure_name_fires() {
        for (words, _) in IMPURE {
            let code = format!("fn f() {{ {}::call(); }}", words.concat());
            let code = code.parse().expect("the sample is Rust");
            assert_eq!(impurities(&code).len(), 1, "{words:?}");
        }
    }

    #[test]
    fn grouped_imports_are_seen() {
        let code = "use std::{collections::BTreeMap, fs::File, io, thread};";
        assert_eq!(impurities(&code.parse().expect("the sample is Rust")).len(), 2);
        let code = "use rand::{Rng, RngCore}; use std::{fmt, mem};";
        assert_eq!(impurities(&code.parse().expect("the sample is Rust")), []);
    }

    #[test]
    fn time_as_an_argument_is_pure() {
        let code = "fn f(now: Duration, at: std::net::SocketAddr) {} // not Instant";
        assert_eq!(impurities(&code.parse().expect("the sample is Rust")), []);
    }

    #[test]
    fn purity_is_declared_at_the_start_of_a_line() {
        assert!(declares_purity("// licence\n//! Places.\n//!\n//! Pure: no I/O.\n"));
        assert!(!declares_purity("//! Not Pure: reads the clock.\n"));
    }
}
