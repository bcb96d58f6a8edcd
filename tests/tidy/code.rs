// SPDX-License-Identifier: MIT OR Apache-2.0
//! Constructs that we do not write, each with what to write instead.
//!
//! All rules read tokens: comments and strings never match, and macro bodies do.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::Remark;
use crate::tokens::{each_run, is_ident, is_punct, line, parenthesised, reads};

/// Calls `check` at every token of every run and collects what it says.
fn at_each_token(
    code: &TokenStream,
    check: impl Fn(&[TokenTree], usize) -> Option<String>,
) -> Vec<Remark> {
    let mut remarks = Vec::new();
    each_run(code, &mut |run| {
        for at in 0..run.len() {
            if let Some(message) = check(run, at) {
                remarks.push(Remark::new(line(&run[at]), message));
            }
        }
    });
    remarks
}

/// `use a::*` hides where a name comes from.
pub fn glob_imports(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        // `use<'a>` in a return type captures lifetimes; it imports nothing.
        let capture = run.get(at + 1).is_some_and(|next| is_punct(next, '<'));
        if !is_ident(&run[at], "use") || capture {
            return None;
        }
        let import = run.iter().skip(at).take_while(|token| !is_punct(token, ';')).cloned();
        let mut glob = false;
        each_run(&import.collect(), &mut |run| {
            glob |= run.iter().any(|token| is_punct(token, '*'))
        });
        glob.then(|| "a glob import: name what you use".to_owned())
    })
}

/// A getter is called what it gives.
pub fn getters(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        let TokenTree::Ident(name) = run.get(at + 1)? else { return None };
        let name = name.to_string();
        let rest = name.strip_prefix("get_")?;
        is_ident(&run[at], "fn").then(|| format!("fn {name}: call it `{rest}`"))
    })
}

/// Input must give an error, and an invariant deserves a reason.
pub fn unwraps(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        let [method, call] = run.get(at + 1..at + 3)? else { return None };
        let named = is_ident(method, "unwrap") || is_ident(method, "unwrap_err");
        let called = parenthesised(call).is_some_and(|arguments| arguments.is_empty());
        (is_punct(&run[at], '.') && named && called)
            .then(|| "unwrap: return an error, or `expect` why it cannot fail".to_owned())
    })
}

/// A queue without a bound is memory that a slow reader fills.
pub fn unbounded_queues(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        let called = |at: usize| run.get(at).and_then(parenthesised);
        let named = is_ident(&run[at], "unbounded_channel")
            || is_ident(&run[at], "unbounded") && called(at + 1).is_some();
        // `std::sync::mpsc::channel` takes no capacity because it has none; tokio's takes one.
        let capacity_free = reads(run, at, &["mpsc", ":", ":", "channel"])
            && run.iter().skip(at + 4).find_map(parenthesised).is_some_and(|it| it.is_empty());
        (named || capacity_free).then(|| "an unbounded queue: give it a capacity".to_owned())
    })
}

/// State that belongs to the process belongs to nobody: two nodes in one test would share it. The
/// language has one allocator for a process, and no other form for it.
pub fn statics(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        let before = at.checked_sub(1).map(|before| &run[before]);
        let lifetime = before.is_some_and(|before| is_punct(before, '\''));
        let allocator = matches!(before, Some(TokenTree::Group(attribute))
            if attribute.stream().to_string() == "global_allocator");
        let name = run.get(at + 1).filter(|next| matches!(next, TokenTree::Ident(_)))?;
        (is_ident(&run[at], "static") && !lifetime && !allocator)
            .then(|| format!("static {name}: a `const`, or a field of what owns it"))
    })
}

/// An opinion of the compiler that is switched off is switched off for a reason.
pub fn unreasoned_allows(code: &TokenStream) -> Vec<Remark> {
    at_each_token(code, |run, at| {
        let attribute = is_punct(run.get(at)?, '#');
        let at = if is_punct(run.get(at + 1)?, '!') { at + 2 } else { at + 1 };
        let TokenTree::Group(group) = run.get(at)? else { return None };
        if !attribute || group.delimiter() != Delimiter::Bracket {
            return None;
        }
        let mut bare = false;
        each_run(&group.stream(), &mut |run| {
            for at in 1..run.len() {
                let switch = is_ident(&run[at - 1], "allow") || is_ident(&run[at - 1], "expect");
                let arguments = parenthesised(&run[at]);
                bare |= switch && arguments.is_some_and(|it| !names(&it, "reason"));
            }
        });
        bare.then(|| "a lint switched off without `reason = \"...\"`".to_owned())
    })
}

fn names(code: &TokenStream, word: &str) -> bool {
    code.clone().into_iter().any(|token| is_ident(&token, word))
}

/// stdout is data and stderr is talk; both go through one place.
pub fn prints(code: &TokenStream) -> Vec<Remark> {
    const MACROS: [&str; 5] = ["println", "print", "eprintln", "eprint", "dbg"];
    at_each_token(code, |run, at| {
        let name = MACROS.into_iter().find(|name| is_ident(&run[at], name))?;
        is_punct(run.get(at + 1)?, '!')
            .then(|| format!("{name}!: log with `tracing`, or go through the output module"))
    })
}

/// A test that sleeps waits for luck.
pub fn sleeps(code: &TokenStream) -> Vec<Remark> {
    const CALLS: [&str; 3] = ["sleep", "sleep_until", "sleep_ms"];
    at_each_token(code, |run, at| {
        let name = CALLS.into_iter().find(|name| is_ident(&run[at], name))?;
        parenthesised(run.get(at + 1)?)?;
        let before = at.checked_sub(1).map(|at| &run[at]);
        let other = before.is_some_and(|token| is_punct(token, '.') || is_ident(token, "fn"));
        (!other).then(|| format!("{name}: wait for the event, or poll with `eventually`"))
    })
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;

    use super::{
        Remark, getters, glob_imports, prints, sleeps, statics, unbounded_queues,
        unreasoned_allows, unwraps,
    };

    /// Every line of `bad` must be remarked on by `rule`, no line of `good` may be.
    fn sorts(rule: fn(&TokenStream) -> Vec<Remark>, bad: &[&str], good: &[&str]) {
        let count = |code: &str| rule(&code.parse().expect("the sample is Rust")).len();
        for code in bad {
            assert_eq!(count(code), 1, "{code}");
        }
        for code in good {
            assert_eq!(count(code), 0, "{code}");
        }
    }

    #[test]
    fn glob_imports_are_seen_at_any_depth() {
        sorts(
            glob_imports,
            &["use a::*;", "use a::{b, c::*};", "mod t { use super::*; }", "pub use E::*;"],
            &[
                "use a::b; fn f() { 1 * 2; }",
                "fn f() -> impl T + use<'_> { x } const A: u8 = 1 * 2;",
            ],
        );
    }

    #[test]
    fn getters_are_seen_and_calls_are_not() {
        sorts(getters, &["fn get_it() {}"], &["map.get_mut(1)", "fn target() {}", "fn get() {}"]);
    }

    #[test]
    fn unwraps_are_seen_and_their_cousins_are_not() {
        sorts(
            unwraps,
            &["a.unwrap();", "a.unwrap_err();", "assert!(a.unwrap())"],
            &["a.unwrap_or(1)", "a.expect(\"why\")", "\"a.unwrap()\"", "self.unwrap(key)"],
        );
    }

    #[test]
    fn unbounded_queues_are_seen_and_bounded_ones_are_not() {
        sorts(
            unbounded_queues,
            &[
                "mpsc::unbounded_channel()",
                "use tokio::sync::mpsc::unbounded_channel;",
                "flume::unbounded()",
                "let a = mpsc::channel();",
                "let a = mpsc::channel::<u8>();",
            ],
            &[
                "mpsc::channel(8)",
                "mpsc::channel::<u8>(8)",
                "oneshot::channel()",
                "let unbounded = 1",
            ],
        );
    }

    #[test]
    fn statics_are_seen_and_lifetimes_are_not() {
        sorts(
            statics,
            &[
                "static A: u8 = 1;",
                "thread_local! { static A: u8 = 1; }",
                "static mut A: u8 = 1;",
                "#[no_mangle] static A: u8 = 1;",
            ],
            &[
                "fn f() -> &'static str { A }",
                "fn f(a: &'static mut u8) {}",
                "const A: u8 = 1;",
                "#[global_allocator] static A: B = B;",
            ],
        );
    }

    #[test]
    fn a_switched_off_lint_gives_its_reason() {
        sorts(
            unreasoned_allows,
            &[
                "#[allow(dead_code)] fn f() {}",
                "#![expect(a, b)]",
                "#[cfg_attr(x, allow(a))] struct A;",
            ],
            &[
                "#[allow(dead_code, reason = \"why\")] fn f() {}",
                "#[derive(Debug)] struct A;",
                "fn f() { a.expect(\"why\") }",
            ],
        );
    }

    #[test]
    fn prints_are_seen_and_writes_are_not() {
        sorts(
            prints,
            &["println!(\"a\");", "eprintln!(\"a\")", "dbg!(a)"],
            &["writeln!(out)", "fn print() {}", "// println!()"],
        );
    }

    #[test]
    fn sleeps_are_seen_and_methods_are_not() {
        sorts(
            sleeps,
            &["std::thread::sleep(a);", "tokio::time::sleep(a).await;", "sleep(a);"],
            &["clock.sleep(a)", "fn sleep(a: u8) {}", "Command::new(\"sleep\")"],
        );
    }
}
