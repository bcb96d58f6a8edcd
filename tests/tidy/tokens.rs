// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walking token streams: runs of siblings, and telling test code from the rest.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Calls `visit` with every run of sibling tokens, the outermost first.
pub fn each_run(code: &TokenStream, visit: &mut dyn FnMut(&[TokenTree])) {
    let run: Vec<TokenTree> = code.clone().into_iter().collect();
    visit(&run);
    for token in &run {
        if let TokenTree::Group(group) = token {
            each_run(&group.stream(), visit);
        }
    }
}

/// The line a token starts on.
pub fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

pub fn is_ident(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if *ident == word)
}

pub fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// The content of a parenthesised group.
pub fn parenthesised(token: &TokenTree) -> Option<TokenStream> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
            Some(group.stream())
        }
        _ => None,
    }
}

/// Whether the tokens from `at` on read like `words`; a word is an identifier or one sign.
pub fn reads(run: &[TokenTree], at: usize, words: &[&str]) -> bool {
    run.len() >= at + words.len()
        && words.iter().zip(&run[at..]).all(|(word, token)| match token {
            TokenTree::Ident(ident) => ident == word,
            TokenTree::Punct(punct) => punct.to_string() == *word,
            _ => false,
        })
}

/// The items that only tests compile, taken apart from all others.
pub struct Parted {
    pub production: TokenStream,
    pub tests: TokenStream,
}

/// Parts a file by its `#[cfg(test)]` items and its `#[test]` functions.
pub fn part(code: &TokenStream) -> Parted {
    let run: Vec<TokenTree> = code.clone().into_iter().collect();
    let mut parted = Parted { production: TokenStream::new(), tests: TokenStream::new() };
    let mut at = 0;
    while at < run.len() {
        if is_test_attribute(&run, at) {
            let end = item_end(&run, at);
            parted.tests.extend(run[at..end].iter().cloned());
            at = end;
            continue;
        }
        match &run[at] {
            TokenTree::Group(group) => {
                let inside = part(&group.stream());
                let mut kept = Group::new(group.delimiter(), inside.production);
                kept.set_span(group.span());
                parted.production.extend([TokenTree::Group(kept)]);
                parted.tests.extend(inside.tests);
            }
            token => parted.production.extend([token.clone()]),
        }
        at += 1;
    }
    parted
}

/// Whether an attribute that makes its item test code starts at `at`.
fn is_test_attribute(run: &[TokenTree], at: usize) -> bool {
    if !is_punct(&run[at], '#') {
        return false;
    }
    let Some(TokenTree::Group(group)) = run.get(at + 1) else { return false };
    let mut text = group.stream().to_string();
    text.retain(|letter| !letter.is_whitespace());
    if let Some(condition) = text.strip_prefix("cfg(") {
        let mut words = condition.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        return words.any(|word| word == "test") && !condition.contains("not(test)");
    }
    let path = text.split('(').next().unwrap_or_default();
    path.rsplit("::").next() == Some("test")
}

/// Where the item that starts with the attribute at `at` ends: after its body or its `;`.
fn item_end(run: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    };
    run.iter().skip(at).position(ends).map_or(run.len(), |distance| at + distance + 1)
}

#[cfg(test)]
mod tests {
    use super::{each_run, part, reads};

    #[test]
    fn runs_reach_every_depth() {
        let code = "a { b [ c ( d ) ] }".parse().expect("the sample is Rust");
        let mut runs = 0;
        each_run(&code, &mut |_| runs += 1);
        assert_eq!(runs, 4);
    }

    #[test]
    fn reading_stops_at_the_end() {
        let code: proc_macro2::TokenStream = "a::b".parse().expect("the sample is Rust");
        let run: Vec<_> = code.into_iter().collect();
        assert!(reads(&run, 0, &["a", ":", ":", "b"]));
        assert!(!reads(&run, 1, &["a"]));
        assert!(!reads(&run, 3, &["b", "c"]));
    }

    #[test]
    fn test_items_are_parted_from_the_rest() {
        let code = "fn kept() {}
            #[cfg(test)] mod tests { fn one() {} }
            #[cfg(not(test))] fn also() {}
            #[cfg(all(test, unix))] fn two() {}
            mod inner { #[tokio::test(start_paused = true)] async fn three() {} fn fourth() {} }
            #[derive(Debug)] struct Last;";
        let parted = part(&code.parse().expect("the sample is Rust"));
        let (production, tests) = (parted.production.to_string(), parted.tests.to_string());
        for name in ["kept", "also", "fourth", "Last"] {
            assert!(production.contains(name) && !tests.contains(name), "{name}");
        }
        for name in ["one", "two", "three"] {
            assert!(tests.contains(name) && !production.contains(name), "{name}");
        }
    }
}
