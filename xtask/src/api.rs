//! `cargo xtask api`: the public names of the library and their signatures, as a text. `docs/public-api.txt` is that text as of the last change
//! that meant to change it: the tests compare the two, so a name that goes or a signature that changes is seen before users see it.
//!
//! [`names`] finds what a name stands for; [`print`](mod@print) writes a signature. Items that macros make are not seen.

mod names;
mod print;

use anyhow::{Context as _, bail};
use names::{Definition, Found, Names};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, TraitItem, Visibility};

/// The crates of the library, as code names them, and where their sources are.
const CRATES: [(&str, &str); 3] =
    [("meshwork", "src"), ("meshwork_actors", "actors/src"), ("meshwork_wire", "wire/src")];

/// The text, in the folder of the project.
const WRITTEN: &str = "docs/public-api.txt";

/// Prints the public API, or writes it down.
pub(crate) fn run(record: bool) -> anyhow::Result<()> {
    let api = Api::read(Path::new("."))?;
    if record {
        return fs::write(WRITTEN, api.text).with_context(|| format!("cannot write {WRITTEN}"));
    }
    print!("{}", api.text);
    if !api.nameless.is_empty() {
        bail!("these signatures name types that are not exported:\n{}", api.nameless.join("\n"));
    }
    Ok(())
}

/// The public API.
struct Api {
    text: String,
    /// Signatures with a type of ours that users cannot name.
    nameless: Vec<String>,
}

impl Api {
    /// Reads the sources below this folder.
    fn read(root: &Path) -> anyhow::Result<Self> {
        let names = Names::read(root, &CRATES)?;
        let mut exported: BTreeMap<String, Found> = BTreeMap::new();
        collect(&names, "meshwork", "meshwork", &mut exported);
        let definitions: BTreeSet<_> = exported.values().filter_map(Found::definition).collect();
        let mut api = Self { text: String::new(), nameless: Vec::new() };
        // The shortest path of each item is where it is printed; the others name it.
        let mut printed: BTreeMap<Definition, String> = BTreeMap::new();
        let mut by_length: Vec<_> = exported.iter().collect();
        by_length.sort_by_key(|(path, _)| (path.matches("::").count(), path.as_str()));
        for (path, found) in by_length {
            if let Some(definition) = found.definition() {
                printed.entry(definition).or_insert_with(|| path.clone());
            }
        }
        for (path, found) in &exported {
            api.item(&names, path, found, &printed, &definitions);
        }
        Ok(api)
    }

    fn item(
        &mut self,
        names: &Names,
        path: &str,
        found: &Found,
        printed: &BTreeMap<Definition, String>,
        exported: &BTreeSet<Definition>,
    ) {
        let Some(definition) = found.definition() else {
            self.text += &format!("pub use {path} = {}\n", found.shown());
            return;
        };
        let first = &printed[&definition];
        if first != path {
            self.text += &format!("pub use {path} = {first}\n");
            return;
        }
        let Some(item) = names.item(&definition) else { return };
        let mut lines = print::item(path, item);
        let mut named = Named::default();
        named.of_item(item);
        let mut wrong = named.wrong(names, &definition.0, exported);
        for (module, block) in names.impls_of(&definition) {
            let mut named = Named::default();
            let of_trait = block.trait_.as_ref().map(|(path, _)| path);
            if let Some(of) = of_trait {
                let is_ours = names.resolve(module, of).and_then(|found| found.definition());
                if is_ours.is_some_and(|definition| !exported.contains(&definition))
                    || print::is_hidden(&block.attrs)
                {
                    continue;
                }
                lines.push(print::header(block));
                continue;
            }
            for item in &block.items {
                let is_public = match item {
                    ImplItem::Fn(item) => {
                        matches!(item.vis, Visibility::Public(_)) && !print::is_hidden(&item.attrs)
                    }
                    ImplItem::Const(item) => {
                        matches!(item.vis, Visibility::Public(_)) && !print::is_hidden(&item.attrs)
                    }
                    _ => false,
                };
                if is_public {
                    lines.push(print::member(block, item));
                    named.visit_impl_item_signature(item);
                }
            }
            wrong.extend(named.wrong(names, module, exported));
        }
        lines[1..].sort();
        lines.dedup();
        for line in lines {
            self.text += &line;
            self.text.push('\n');
        }
        self.nameless.extend(wrong.into_iter().map(|(name, from)| format!("{path} names {name} of {from}")));
        self.nameless.dedup();
    }
}

/// Adds all that a module exports, and the modules in it.
fn collect(names: &Names, module: &str, path: &str, exported: &mut BTreeMap<String, Found>) {
    for (name, found) in names.exports(module) {
        let path = format!("{path}::{name}");
        if let Some(inner) = found.as_module() {
            collect(names, inner, &path, exported);
        } else {
            exported.insert(path, found);
        }
    }
}

/// The paths that signatures name.
#[derive(Default)]
struct Named {
    paths: Vec<syn::Path>,
    /// Names that a signature brings itself.
    generics: BTreeSet<String>,
}

impl Named {
    fn of_item(&mut self, item: &Item) {
        match item {
            Item::Struct(item) => {
                self.visit_generics(&item.generics);
                let public = item.fields.iter().filter(|field| matches!(field.vis, Visibility::Public(_)));
                public.for_each(|field| self.visit_type(&field.ty));
            }
            Item::Trait(item) => {
                self.visit_generics(&item.generics);
                item.supertraits.iter().for_each(|bound| self.visit_type_param_bound(bound));
                for inner in &item.items {
                    match inner {
                        TraitItem::Fn(inner) if !print::is_hidden(&inner.attrs) => {
                            self.visit_signature(&inner.sig)
                        }
                        TraitItem::Type(inner) => self.visit_trait_item_type(inner),
                        _ => {}
                    }
                }
            }
            Item::Fn(item) => self.visit_signature(&item.sig),
            Item::Enum(item) => {
                self.visit_generics(&item.generics);
                item.variants
                    .iter()
                    .flat_map(|variant| &variant.fields)
                    .for_each(|field| self.visit_type(&field.ty));
            }
            Item::Type(item) => self.visit_item_type(item),
            Item::Const(item) => self.visit_type(&item.ty),
            _ => {}
        }
    }

    fn visit_impl_item_signature(&mut self, item: &ImplItem) {
        match item {
            ImplItem::Fn(item) => self.visit_signature(&item.sig),
            ImplItem::Const(item) => self.visit_type(&item.ty),
            _ => {}
        }
    }

    /// The types of ours that are named and not exported, and where they are defined.
    fn wrong(&self, names: &Names, module: &str, exported: &BTreeSet<Definition>) -> Vec<(String, String)> {
        let ours =
            self.paths.iter().filter(|path| !self.generics.contains(&path.segments[0].ident.to_string()));
        let found = ours.filter_map(|path| names.resolve(module, path)?.definition());
        let mut wrong: Vec<_> = found
            .filter(|definition| !exported.contains(definition))
            .map(|(module, name)| (name, module))
            .collect();
        wrong.sort();
        wrong.dedup();
        wrong
    }
}

impl Visit<'_> for Named {
    fn visit_path(&mut self, path: &syn::Path) {
        self.paths.push(path.clone());
        visit::visit_path(self, path);
    }

    fn visit_type_param(&mut self, parameter: &syn::TypeParam) {
        self.generics.insert(parameter.ident.to_string());
        visit::visit_type_param(self, parameter);
    }

    fn visit_attribute(&mut self, _: &syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn the_public_api_is_as_it_is_written_down() {
        let api = Api::read(root()).unwrap();
        let written = fs::read_to_string(root().join(WRITTEN)).unwrap_or_default();
        let (now, then): (BTreeSet<_>, BTreeSet<_>) = (api.text.lines().collect(), written.lines().collect());
        let more = now.difference(&then).map(|line| format!("+ {line}\n"));
        let less = then.difference(&now).map(|line| format!("- {line}\n"));
        let changes: String = less.chain(more).collect();
        assert!(
            changes.is_empty(),
            "the public API has changed. If that is meant, run `cargo xtask api --record`, and tell users of what goes in CHANGELOG.md:\n{changes}"
        );
    }

    #[test]
    fn public_signatures_name_no_type_that_is_not_exported() {
        let api = Api::read(root()).unwrap();
        assert!(
            api.nameless.is_empty(),
            "export them, or take them out of the signature:\n{}",
            api.nameless.join("\n")
        );
    }

    /// A rule that finds nothing looks like a rule that is kept.
    #[test]
    fn what_is_exported_is_found_wherever_it_is_defined() {
        let folder = std::env::temp_dir().join(format!("meshwork-api-{}", std::process::id()));
        for (file, text) in [
            (
                "src/lib.rs",
                "mod inner; use inner::inner; pub mod open; pub use inner::{Shown, Other as Renamed}; pub use meshwork_actors::deep::Deep; #[doc(hidden)] pub mod hidden {} pub mod prelude { pub use crate::Shown; }",
            ),
            (
                "src/inner.rs",
                "use crate::inner::below::Secret; pub fn inner() {} pub struct Shown<T> { pub a: T, b: Secret } pub struct Other; pub mod below; \
                 impl<T: Clone> Shown<T> { pub fn secret(&self, n: u8) -> Option<&Secret> { None } fn private(&self) {} #[doc(hidden)] pub fn hidden(&self) -> Secret { Secret } } \
                 impl From<Other> for Shown<u8> { fn from(_: Other) -> Self { loop {} } }",
            ),
            ("src/inner/below.rs", "pub struct Secret;"),
            (
                "src/open.rs",
                "pub trait Open: Send { type Item; fn open(self) -> Self::Item; } pub fn free() {}",
            ),
            ("actors/src/lib.rs", "pub mod deep;"),
            ("actors/src/deep.rs", "mod file; pub use file::Deep;"),
            ("actors/src/deep/file.rs", "#[non_exhaustive] pub enum Deep { A, B { x: u8 } }"),
            ("wire/src/lib.rs", ""),
        ] {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let api = Api::read(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let expected = "\
pub enum meshwork::Deep #[non_exhaustive]
pub meshwork::Deep::A
pub meshwork::Deep::B { x: u8 }
pub struct meshwork::Renamed
pub struct meshwork::Shown<T>
impl From<Other> for Shown<u8>
impl<T: Clone> Shown<T>: pub fn secret(&self, n: u8) -> Option<&Secret>
pub meshwork::Shown::a: T
pub fn meshwork::open::free()
pub trait meshwork::open::Open: Send
fn meshwork::open::Open::open(self) -> Self::Item
type meshwork::open::Open::Item
pub use meshwork::prelude::Shown = meshwork::Shown
";
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&api.text), sorted(expected));
        assert_eq!(api.nameless, ["meshwork::Shown names Secret of meshwork::inner::below"]);
    }
}
