//! Signatures as lines of text, without bodies, documentation and private parts.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Fields, Generics, ImplItem, Item, ItemImpl, TraitItem, Visibility};

/// The lines of an item, its own first.
pub(super) fn item(path: &str, item: &Item) -> Vec<String> {
    match item {
        Item::Struct(item) => {
            let mut lines =
                vec![format!("pub struct {path}{}{}", shown_generics(&item.generics), marked(&item.attrs))];
            for (at, field) in item.fields.iter().enumerate() {
                if matches!(field.vis, Visibility::Public(_)) && !is_hidden(&field.attrs) {
                    let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
                    lines.push(format!("pub {path}::{name}: {}", text(&field.ty)));
                }
            }
            lines
        }
        Item::Enum(item) => {
            let mut lines =
                vec![format!("pub enum {path}{}{}", shown_generics(&item.generics), marked(&item.attrs))];
            for variant in item.variants.iter().filter(|variant| !is_hidden(&variant.attrs)) {
                let fields = match &variant.fields {
                    Fields::Unit => String::new(),
                    Fields::Unnamed(fields) => {
                        let types: Vec<_> = fields.unnamed.iter().map(|field| text(&field.ty)).collect();
                        format!("({})", types.join(", "))
                    }
                    Fields::Named(fields) => {
                        let field = |field: &syn::Field| {
                            format!(
                                "{}: {}",
                                field.ident.as_ref().map_or_else(String::new, ToString::to_string),
                                text(&field.ty)
                            )
                        };
                        let fields: Vec<_> = fields.named.iter().map(field).collect();
                        format!(" {{ {} }}", fields.join(", "))
                    }
                };
                lines.push(format!("pub {path}::{}{fields}", variant.ident));
            }
            lines
        }
        Item::Trait(item) => {
            let above: Vec<_> = item.supertraits.iter().map(text).collect();
            let above = if above.is_empty() { String::new() } else { format!(": {}", above.join(" + ")) };
            let mut lines = vec![format!(
                "pub trait {path}{}{above}{}",
                shown_generics(&item.generics),
                marked(&item.attrs)
            )];
            for inner in &item.items {
                match inner {
                    TraitItem::Fn(inner) if !is_hidden(&inner.attrs) => {
                        let given = if inner.default.is_some() { " { .. }" } else { "" };
                        lines.push(format!("{}{given}", of_signature(path, &inner.sig)));
                    }
                    TraitItem::Type(inner) => {
                        let bounds: Vec<_> = inner.bounds.iter().map(text).collect();
                        let bounds = if bounds.is_empty() {
                            String::new()
                        } else {
                            format!(": {}", bounds.join(" + "))
                        };
                        lines.push(format!("type {path}::{}{bounds}", inner.ident));
                    }
                    TraitItem::Const(inner) => {
                        lines.push(format!("const {path}::{}: {}", inner.ident, text(&inner.ty)))
                    }
                    _ => {}
                }
            }
            lines
        }
        Item::Fn(item) => vec![format!("pub {}{}", of_signature(path, &item.sig), marked(&item.attrs))],
        Item::Const(item) => vec![format!("pub const {path}: {} = {}", text(&item.ty), text(&item.expr))],
        Item::Static(item) => vec![format!("pub static {path}: {}", text(&item.ty))],
        Item::Type(item) => {
            vec![format!("pub type {path}{} = {}", shown_generics(&item.generics), text(&item.ty))]
        }
        Item::Macro(_) => vec![format!("macro {path}!")],
        _ => vec![format!("pub {path}")],
    }
}

/// A public member of a type.
pub(super) fn member(block: &ItemImpl, item: &ImplItem) -> String {
    let header = header(block);
    match item {
        ImplItem::Fn(item) => format!("{header}: pub {}{}", text(&item.sig), marked(&item.attrs)),
        ImplItem::Const(item) => format!("{header}: pub const {}: {}", item.ident, text(&item.ty)),
        other => format!("{header}: {}", text(other)),
    }
}

/// The head of an `impl`.
pub(super) fn header(block: &ItemImpl) -> String {
    let mut block = block.clone();
    block.attrs.retain(|attribute| attribute.path().is_ident("cfg"));
    block.items.clear();
    text(&block).trim_end_matches("{ }").trim_end().to_owned()
}

/// The signature of a function, under its whole path.
fn of_signature(path: &str, signature: &syn::Signature) -> String {
    let whole = text(signature);
    let name = signature.ident.to_string();
    let named = format!("fn {name}");
    let at = whole.find(&named).map_or(0, |at| at + "fn ".len());
    let (before, after) = whole.split_at(at);
    let path = if path.ends_with(&format!("::{name}")) { path.to_owned() } else { format!("{path}::{name}") };
    format!("{before}{path}{}", &after[name.len()..])
}

fn shown_generics(generics: &Generics) -> String {
    let clause =
        generics.where_clause.as_ref().map_or_else(String::new, |clause| format!(" {}", text(clause)));
    format!("{}{clause}", text(generics))
}

/// Whether the documentation leaves it out.
pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("doc") && text(attribute).contains("hidden"))
}

/// The attributes that users notice.
fn marked(attributes: &[Attribute]) -> String {
    let noticed = attributes.iter().filter(|attribute| {
        ["non_exhaustive", "cfg", "deprecated", "must_use"].iter().any(|name| attribute.path().is_ident(name))
    });
    noticed
        .map(|attribute| match attribute.path().is_ident("must_use") {
            true => " #[must_use]".to_owned(),
            false => format!(" {}", text(attribute)),
        })
        .collect()
}

/// Tokens as people write them.
pub(super) fn text(tokens: &impl ToTokens) -> String {
    let mut words = Vec::new();
    flatten(tokens.to_token_stream(), &mut words);
    // A list over several lines ends with a comma.
    let mut out = String::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map(String::as_str);
        if word == "," && matches!(next, Some(")" | ">" | "]")) {
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| words.get(at)).map_or("", String::as_str);
        if spaced(before, word) && !out.is_empty() {
            out.push(' ');
        }
        out += word;
    }
    out
}

/// Whether a space stands between two words.
fn spaced(before: &str, word: &str) -> bool {
    let opens = ["(", "[", "<", "&", "::", "#", "!", "?", "*", "."].contains(&before);
    let closes = [")", "]", ">", ",", ";", ":", "::", "?", ".", "!"].contains(&word);
    let follows = ["(", "[", "<"].contains(&word)
        && before.ends_with(|it: char| it.is_alphanumeric() || it == '_' || it == '>');
    let is_arrow = ["->", "=", "+", ":"].contains(&before);
    let leads = before == "mut"
        || before == "dyn"
        || before == "as"
        || before == "where"
        || before == "for" && word != "<";
    leads || is_arrow && word != "::" || !(opens || closes || follows)
}

fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let mut joined = String::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                words.push(open.to_owned());
                flatten(group.stream(), words);
                words.push(close.to_owned());
            }
            TokenTree::Punct(punct) => {
                joined.push(punct.as_char());
                if punct.spacing() == Spacing::Joint && [":", "-", "'", "="].contains(&joined.as_str()) {
                    continue;
                }
                words.push(std::mem::take(&mut joined));
            }
            other => words.push(format!("{}{other}", std::mem::take(&mut joined))),
        }
    }
    words.retain(|word| !word.is_empty());
}
