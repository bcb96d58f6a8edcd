// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a file, a function and a line may be.
//!
//! Functions are found in the token stream rather than in a syntax tree, so that bodies inside
//! macros (`proptest!`, `select!`, `macro_rules!`) are measured like all others.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::Remark;
use crate::tokens::{self, is_ident, is_punct};

/// The file as a whole.
pub fn file_lines(text: &str, lines_max: usize) -> Vec<Remark> {
    let lines = text.lines().count();
    if lines <= lines_max {
        return Vec::new();
    }
    let message = format!("{lines} lines, at most {lines_max}: move a noun to a file of its own");
    vec![Remark::new(0, message)]
}

/// Each line, in characters.
pub fn line_columns(text: &str, columns_max: usize) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > columns_max {
            let message = format!("{columns} columns, at most {columns_max}: break the line");
            remarks.push(Remark::new(at + 1, message));
        }
    }
    remarks
}

/// Each function with a body, from the line of its `fn` to its closing brace, both included.
pub fn function_lines(code: &TokenStream, lines_max: usize) -> Vec<Remark> {
    let mut remarks = Vec::new();
    tokens::each_run(code, &mut |run| {
        for at in 0..run.len() {
            let Some((name, first, last)) = function_at(run, at) else { continue };
            let lines = last + 1 - first;
            if lines > lines_max {
                let message = format!("fn {name} has {lines} lines, at most {lines_max}: split it");
                remarks.push(Remark::new(first, message));
            }
        }
    });
    remarks
}

/// Name, first and last line of the function whose `fn` stands at `at`, if one with a body does.
fn function_at(run: &[TokenTree], at: usize) -> Option<(String, usize, usize)> {
    let TokenTree::Ident(name) = run.get(at + 1)? else { return None };
    if !is_ident(&run[at], "fn") {
        return None;
    }
    for (next, token) in run.iter().enumerate().skip(at + 2) {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                // `-> Array<{ N }>`: a brace after `<` or `,` is a const argument, not the body.
                let before = &run[next - 1];
                if is_punct(before, '<') || is_punct(before, ',') && !ends_bounds(run, next) {
                    continue;
                }
                let first = run[at].span().start().line;
                return Some((name.to_string(), first, group.span_close().end().line));
            }
            _ => {}
        }
    }
    None
}

/// Whether the brace at `at`, which follows a comma, ends a `where` list (which may end so).
fn ends_bounds(run: &[TokenTree], at: usize) -> bool {
    !run.get(at + 1).is_some_and(|next| is_punct(next, '>') || is_punct(next, ','))
}

#[cfg(test)]
mod tests {
    use super::{file_lines, function_lines, line_columns};

    fn measured(code: &str, lines_max: usize) -> Vec<String> {
        let code = code.parse().expect("the sample is Rust");
        function_lines(&code, lines_max).into_iter().map(|remark| remark.message).collect()
    }

    #[test]
    fn a_long_file_is_named_and_one_at_the_limit_is_not() {
        assert_eq!(file_lines("a\nb\n", 2), []);
        assert_eq!(file_lines("a\nb\nc\n", 2).len(), 1);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_columns("äöü", 3), []);
        let remarks = line_columns("abc\nabcd", 3);
        assert_eq!(remarks.iter().map(|remark| remark.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_function_at_the_limit_passes_and_one_more_line_does_not() {
        let code = "fn f() {\n    1;\n}\n";
        assert!(measured(code, 3).is_empty());
        assert_eq!(measured(code, 2), ["fn f has 3 lines, at most 2: split it"]);
    }

    #[test]
    fn methods_nested_functions_and_macro_bodies_count() {
        let method = "impl A {\n fn m(&self) {\n 1;\n }\n}";
        assert_eq!(measured(method, 2).len(), 1);
        let nested = "fn outer() {\n fn inner() {\n 1;\n }\n}";
        assert_eq!(measured(nested, 2).len(), 2);
        let hidden = "proptest! {\n #[test]\n fn p(a in 0..9) {\n 1;\n }\n}";
        assert_eq!(measured(hidden, 2).len(), 1);
    }

    #[test]
    fn the_body_is_found_behind_const_arguments_and_bounds() {
        let argument = "fn f() -> Array<{ 1 }> {\n 1;\n 2;\n}";
        assert_eq!(measured(argument, 3).len(), 1);
        let bounds = "fn f<T>()\nwhere\n T: Copy,\n{\n 1;\n}";
        assert_eq!(measured(bounds, 5).len(), 1);
    }

    #[test]
    fn a_declaration_and_a_pointer_type_are_not_functions() {
        assert!(measured("trait A { fn f(\n&self\n);\n}", 1).is_empty());
        assert!(measured("struct A { f: fn(\nu8\n), }", 1).is_empty());
    }
}
