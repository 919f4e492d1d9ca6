//! What a name in a module of one of the crates stands for: an item, a module, or something of another crate.

use super::print::is_hidden;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use syn::{Attribute, Ident, Item, ItemImpl, Type, UseTree, Visibility};

/// How many names in a row stand for each other, at most: names that stand for each other in a circle stand for nothing.
const DEPTH_MAX: usize = 32;

/// Where an item is defined: its module and its name there.
pub(super) type Definition = (String, String);

/// All modules of the crates, by their paths, such as `meshwork_actors::node::limits`.
pub(super) struct Names {
    modules: BTreeMap<String, Module>,
    crates: Vec<&'static str>,
    impls: BTreeMap<Definition, Vec<(String, ItemImpl)>>,
}

#[derive(Default)]
struct Module {
    items: Vec<Item>,
    uses: Vec<Use>,
}

/// One name that a `use` brings.
struct Use {
    /// `*` for all names.
    name: String,
    path: Vec<String>,
    is_public: bool,
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Item(Definition),
    Module(String),
    /// An item of another crate, by its path.
    Foreign(String),
}

impl Found {
    pub(super) fn definition(&self) -> Option<Definition> {
        match self {
            Self::Item(definition) => Some(definition.clone()),
            Self::Module(_) | Self::Foreign(_) => None,
        }
    }

    pub(super) fn as_module(&self) -> Option<&str> {
        match self {
            Self::Module(module) => Some(module),
            Self::Item(_) | Self::Foreign(_) => None,
        }
    }

    /// The path of what is defined elsewhere.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Item((module, name)) => format!("{module}::{name}"),
            Self::Module(path) | Self::Foreign(path) => path.clone(),
        }
    }
}

impl Names {
    /// Reads the modules of these crates, each with the folder of its sources.
    pub(super) fn read(root: &Path, crates: &[(&'static str, &str)]) -> anyhow::Result<Self> {
        let mut names = Self {
            modules: BTreeMap::new(),
            crates: crates.iter().map(|(name, _)| *name).collect(),
            impls: BTreeMap::new(),
        };
        for (name, folder) in crates {
            let folder = root.join(folder);
            names.read_file(name, &folder.join("lib.rs"), &folder)?;
        }
        let mut impls: BTreeMap<Definition, Vec<(String, ItemImpl)>> = BTreeMap::new();
        for (path, module) in &names.modules {
            for item in &module.items {
                let Item::Impl(block) = item else { continue };
                let Type::Path(of) = &*block.self_ty else { continue };
                if let Some(Found::Item(definition)) = names.resolve(path, &of.path) {
                    impls.entry(definition).or_default().push((path.clone(), block.clone()));
                }
            }
        }
        names.impls = impls;
        Ok(names)
    }

    fn read_file(&mut self, module: &str, file: &Path, folder: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.read_items(module, parsed.items, folder)
    }

    fn read_items(&mut self, module: &str, items: Vec<Item>, folder: &Path) -> anyhow::Result<()> {
        let mut read = Module::default();
        for item in items {
            match item {
                Item::Mod(inner) if is_test(&inner.attrs) || is_hidden(&inner.attrs) => {}
                Item::Mod(mut inner) => {
                    let name = inner.ident.to_string();
                    let (path, below) = (format!("{module}::{name}"), folder.join(&name));
                    match inner.content.take() {
                        Some((_, items)) => self.read_items(&path, items, &below)?,
                        None => self.read_file(&path, &folder.join(format!("{name}.rs")), &below)?,
                    }
                    read.items.push(Item::Mod(inner));
                }
                Item::Use(item) if is_hidden(&item.attrs) => {}
                Item::Use(item) => {
                    let is_public = matches!(item.vis, Visibility::Public(_));
                    spread(&item.tree, &mut Vec::new(), is_public, &mut read.uses);
                }
                // Such a macro stands at the root of its crate.
                Item::Macro(item) if item.attrs.iter().any(|it| it.path().is_ident("macro_export")) => {
                    let root = module.split("::").next().unwrap_or(module).to_owned();
                    if !is_hidden(&item.attrs) && root == module {
                        read.items.push(Item::Macro(item));
                    } else if !is_hidden(&item.attrs) {
                        self.modules.entry(root).or_default().items.push(Item::Macro(item));
                    }
                }
                other => read.items.push(other),
            }
        }
        let there = self.modules.entry(module.to_owned()).or_default();
        there.items.extend(read.items);
        there.uses.extend(read.uses);
        Ok(())
    }

    /// The item that is defined there.
    pub(super) fn item(&self, (module, name): &Definition) -> Option<&Item> {
        let items = &self.modules.get(module)?.items;
        items.iter().find(|item| {
            !matches!(item, Item::Mod(_)) && ident_of(item).is_some_and(|(ident, ..)| ident == name)
        })
    }

    /// The blocks that implement something for an item, with their modules.
    pub(super) fn impls_of(&self, definition: &Definition) -> &[(String, ItemImpl)] {
        self.impls.get(definition).map_or(&[], Vec::as_slice)
    }

    /// The public names of a module.
    pub(super) fn exports(&self, module: &str) -> Vec<(String, Found)> {
        let Some(there) = self.modules.get(module) else { return Vec::new() };
        let mut exports = Vec::new();
        for item in &there.items {
            if let Some((ident, visibility, attributes)) = ident_of(item)
                && (matches!(visibility, Some(Visibility::Public(_))) && !is_hidden(attributes))
            {
                let name = ident.to_string();
                let found = match item {
                    Item::Mod(_) => Found::Module(format!("{module}::{name}")),
                    _ => Found::Item((module.to_owned(), name.clone())),
                };
                exports.push((name, found));
            }
        }
        for item in there.uses.iter().filter(|item| item.is_public) {
            if item.name == "*" {
                if let Some(Found::Module(of)) = self.walk(module, &item.path, DEPTH_MAX) {
                    exports.extend(self.exports(&of));
                }
            } else if let Some(found) = self.walk(module, &item.path, DEPTH_MAX) {
                exports.push((item.name.clone(), found));
            }
        }
        exports
    }

    /// What a path in a module stands for; none if it is nothing of ours.
    pub(super) fn resolve(&self, module: &str, path: &syn::Path) -> Option<Found> {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.walk(module, &segments, DEPTH_MAX).filter(|found| !matches!(found, Found::Foreign(_)))
    }

    fn walk(&self, module: &str, path: &[String], depth: usize) -> Option<Found> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(module.split("::").next()?.to_owned()),
            "self" => Found::Module(module.to_owned()),
            "super" => Found::Module(module.rsplit_once("::")?.0.to_owned()),
            name if self.crates.contains(&name) => Found::Module(name.to_owned()),
            name => self
                .find_in_path(module, name, rest.is_empty(), depth)
                .unwrap_or_else(|| Found::Foreign(name.to_owned())),
        };
        for (at, segment) in rest.iter().enumerate() {
            found = match found {
                Found::Module(inner) if segment == "super" => {
                    Found::Module(inner.rsplit_once("::")?.0.to_owned())
                }
                Found::Module(inner) if segment == "self" => Found::Module(inner),
                Found::Module(inner) => self.find_in_path(&inner, segment, at + 1 == rest.len(), depth)?,
                // A variant, or what belongs to a type.
                Found::Item(item) => Found::Item(item),
                Found::Foreign(path) => Found::Foreign(format!("{path}::{segment}")),
            };
        }
        Some(found)
    }

    /// What a segment of a path stands for: before others stand modules, which may have the name of a function.
    fn find_in_path(&self, module: &str, name: &str, is_last: bool, depth: usize) -> Option<Found> {
        let inner = format!("{module}::{name}");
        if !is_last && self.modules.contains_key(&inner) {
            return Some(Found::Module(inner));
        }
        self.find(module, name, depth)
    }

    /// What a name in a module stands for: types before modules, as code that names a type means them.
    fn find(&self, module: &str, name: &str, depth: usize) -> Option<Found> {
        let there = self.modules.get(module)?;
        let definition = (module.to_owned(), name.to_owned());
        if self.item(&definition).is_some() {
            return Some(Found::Item(definition));
        }
        let used = there.uses.iter().filter(|item| item.name == name);
        if let Some(found) = used.filter_map(|item| self.walk(module, &item.path, depth)).next() {
            return Some(found);
        }
        let inner = format!("{module}::{name}");
        if self.modules.contains_key(&inner) {
            return Some(Found::Module(inner));
        }
        let all = there.uses.iter().filter(|item| item.name == "*");
        all.filter_map(|item| self.walk(module, &item.path, depth)?.as_module().map(str::to_owned))
            .find_map(|of| self.find(&of, name, depth.checked_sub(1)?))
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("cfg")
            && matches!(&it.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// Adds each name of a `use`.
fn spread(tree: &UseTree, path: &mut Vec<String>, is_public: bool, uses: &mut Vec<Use>) {
    match tree {
        UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            spread(&inner.tree, path, is_public, uses);
            path.pop();
        }
        UseTree::Name(inner) if inner.ident == "self" => {
            let name = path.last().cloned().unwrap_or_default();
            uses.push(Use { name, path: path.clone(), is_public });
        }
        UseTree::Name(inner) => {
            let name = inner.ident.to_string();
            uses.push(Use { path: [&path[..], std::slice::from_ref(&name)].concat(), name, is_public });
        }
        UseTree::Rename(inner) => {
            let name = inner.ident.to_string();
            let path = if name == "self" { path.clone() } else { [&path[..], &[name]].concat() };
            uses.push(Use { name: inner.rename.to_string(), path, is_public });
        }
        UseTree::Glob(_) => uses.push(Use { name: "*".to_owned(), path: path.clone(), is_public }),
        UseTree::Group(group) => group.items.iter().for_each(|inner| spread(inner, path, is_public, uses)),
    }
}

/// The name of an item, its visibility, and its attributes. A macro has no visibility; an exported one is public.
fn ident_of(item: &Item) -> Option<(&Ident, Option<&Visibility>, &[Attribute])> {
    Some(match item {
        Item::Struct(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Enum(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Union(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Trait(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Type(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Fn(item) => (&item.sig.ident, Some(&item.vis), &item.attrs),
        Item::Const(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Static(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Mod(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Macro(item) => (item.ident.as_ref()?, None, &item.attrs),
        _ => return None,
    })
}
