//! The floors of each crate: `tests/floors.txt` lists its files from the ground up, and a file imports downwards only. A path is
//! resolved to the deepest module file on it, so an item that a module re-exports counts as an import of that module's file. Imports
//! between crates, and imports of unit tests, are left to `imports_run_one_way` and to the compiler.

use super::files::{File, Finding};
use super::lexer::is_word;
use std::collections::{BTreeMap, BTreeSet};

/// The list of floors, as it is written.
pub(crate) struct Floors {
    list: File,
    crates: Vec<Crate>,
    unreadable: Vec<Finding>,
}

/// The files of one crate, from the ground up.
struct Crate {
    /// The folder of its source.
    root: String,
    rooms: Vec<Room>,
}

/// A room: files on one floor, each of which may import the files before it.
struct Room {
    floor: usize,
    name: String,
    line: usize,
    files: Vec<(usize, String)>,
}

/// The position of a file: its floor, its room, and its number in the room.
struct Position<'a> {
    floor: usize,
    room: &'a str,
    in_room: usize,
}

impl Position<'_> {
    fn may_import(&self, other: &Position<'_>) -> bool {
        other.floor < self.floor
            || other.floor == self.floor && other.room == self.room && other.in_room < self.in_room
    }
}

impl Floors {
    /// Reads a list: a crate's folder stands at the start of its line, its rooms below, `1 name` with the number of the floor,
    /// and below each room its files, from the bottom up.
    pub(crate) fn read(list: File) -> Self {
        let mut crates: Vec<Crate> = Vec::new();
        let mut unreadable = Vec::new();
        for (line, text) in list.lines() {
            let text = text.split('#').next().unwrap_or_default();
            let entry = text.trim();
            let room =
                entry.split_once(' ').and_then(|(floor, name)| Some((floor.parse().ok()?, name.trim())));
            let is_file = entry.ends_with(".rs");
            match (crates.last_mut(), room) {
                _ if entry.is_empty() => {}
                _ if entry == text.trim_end() => {
                    crates.push(Crate { root: entry.to_owned(), rooms: Vec::new() });
                }
                (Some(it), Some((floor, name))) => {
                    it.rooms.push(Room { floor, name: name.to_owned(), line, files: Vec::new() });
                }
                (Some(Crate { root, rooms }), None) if is_file && !rooms.is_empty() => {
                    let room = rooms.last_mut().expect("it has just been found not to be empty");
                    room.files.push((line, format!("{root}/{entry}")));
                }
                _ => {
                    let right =
                        "write a crate's folder, below it `1 room`, and below that a file of the room";
                    unreadable.push(list.finding(line, entry, right));
                }
            }
        }
        Self { list, crates, unreadable }
    }

    /// Whether a file belongs on a floor: it is the source of a package, or in another folder that the list names.
    pub(crate) fn have_room_for(&self, path: &str) -> bool {
        let is_source = path.starts_with("src/") || path.contains("/src/");
        is_source || self.crates.iter().any(|it| path.starts_with(&format!("{}/", it.root)))
    }

    /// Mistakes in the list itself: files that are missing, listed twice or in the wrong order.
    pub(crate) fn wrong(&self, sources: &[String]) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.unreadable.iter().map(|it| self.list.finding(it.line, &it.what, &it.right)));
        let mut listed = BTreeSet::new();
        for it in &self.crates {
            let (mut floor, mut names) = (0, BTreeSet::new());
            for room in &it.rooms {
                if room.floor != floor && room.floor != floor + 1 || !names.insert(&room.name) {
                    let right = "floors are numbered from 1 on, without a gap, and each room is named once";
                    found.push(self.list.finding(room.line, &format!("{} {}", room.floor, room.name), right));
                }
                floor = room.floor;
                for (line, path) in &room.files {
                    if !sources.contains(path) {
                        found.push(self.list.finding(*line, path, "it does not exist: delete it here"));
                    } else if !listed.insert(path) {
                        found.push(self.list.finding(*line, path, "it stands here twice: delete one"));
                    }
                    let parent = it.parent_of(path);
                    let is_above = |it: (Position<'_>, Position<'_>)| it.0.may_import(&it.1);
                    if let Some(parent) = parent
                        && !it.position(&parent).zip(it.position(path)).is_some_and(is_above)
                    {
                        let right =
                            format!("it stands below {parent}, which declares it: list it before that");
                        found.push(self.list.finding(*line, path, &right));
                    }
                }
            }
        }
        for path in sources.iter().filter(|it| !listed.contains(it)) {
            let right = "it is on no floor: list it above the files that it imports";
            found.push(self.list.finding(1, path, right));
        }
        found
    }

    /// Imports that do not go down, one finding for each two files.
    pub(crate) fn upwards(&self, sources: &[File]) -> Vec<Finding> {
        let mut found = Vec::new();
        for it in &self.crates {
            let code = it.code(sources);
            for arrow in code.arrows() {
                let Some((from, to)) = it.position(&arrow.from).zip(it.position(&arrow.to)) else { continue };
                if from.may_import(&to) {
                    continue;
                }
                let where_it_is = match (to.floor > from.floor, to.room == from.room) {
                    (true, _) => format!("which stands above (floor {} over {})", to.floor, from.floor),
                    (_, true) => format!("which stands above in the same room, {}", from.room),
                    _ => format!("of another room on floor {}: {} beside {}", from.floor, to.room, from.room),
                };
                let mut mends = Vec::new();
                if !arrow.origins.is_empty() {
                    mends.push(format!("write `{}`", arrow.origins.join("`, `")));
                }
                if arrow.origins.len() < arrow.names.len() {
                    mends.push("move what is defined there to a file below both".to_owned());
                }
                let (names, mends) = (arrow.names.join("`, `"), mends.join(", and "));
                let right = format!("imports `{names}` of this file, {where_it_is}: {mends}");
                found.push(Finding { path: arrow.from, line: arrow.line, what: arrow.to, right });
            }
        }
        found
    }

    /// Differences between the map and the list. A crate that has a section of its own, and more than one floor below
    /// its root, is drawn there, the top floor first; then each room has a heading, `#### Floor 1, room`, and under it its
    /// files, each named once.
    pub(crate) fn off_the_map(&self, map: &File) -> Vec<Finding> {
        let mut found = Vec::new();
        let section_of = |it: &Crate| format!("### {}/", it.root.trim_end_matches("/src"));
        for it in self.crates.iter().filter(|it| it.rooms.last().is_some_and(|it| it.floor > 2)) {
            let heading = section_of(it);
            let start = map.lines().find(|(_, text)| *text == heading);
            let Some((start, _)) = start else { continue };
            let section = map.lines().skip(start).take_while(|(_, text)| !is_heading(text, 3));
            let mut drawing = Vec::new();
            let mut headings = Vec::new();
            let mut named = BTreeSet::new();
            let (mut fences, mut floor) = (0, None);
            for (line, text) in section {
                if text.starts_with("```") {
                    fences += 1;
                } else if fences == 1 {
                    let mut words = text.split_whitespace();
                    let mut first = words.next().unwrap_or_default();
                    if first == "floor" {
                        floor = words.next().and_then(|it| it.parse::<usize>().ok());
                        first = words.next().unwrap_or_default();
                    }
                    drawing.push((line, format!("Floor {}, {first}", floor.unwrap_or_default())));
                } else if let Some(heading) = text.strip_prefix("#### ") {
                    headings.push((line, heading.to_owned()));
                } else {
                    for path in text.split('`').skip(1).step_by(2) {
                        let Some(position) = it.position(path) else { continue };
                        let right = format!("Floor {}, {}", position.floor, position.room);
                        let at = headings.last().map_or("no floor", |(_, it)| it);
                        if at != right {
                            let right = format!("it is named under {at}: it stands on `{right}`");
                            found.push(map.finding(line, path, &right));
                        } else if !named.insert(path) {
                            found.push(map.finding(line, path, "it is named before: name it once"));
                        }
                    }
                }
            }
            let right: Vec<_> =
                it.rooms.iter().map(|it| format!("Floor {}, {}", it.floor, it.name)).collect();
            // Drawn as a house is built: the rooms of a floor from left to right, the floors from the top down.
            let mut down: Vec<_> = it.rooms.iter().map(|it| (it.floor, &it.name)).collect();
            down.sort_by_key(|(floor, _)| std::cmp::Reverse(*floor));
            let down: Vec<_> = down.into_iter().map(|(floor, it)| format!("Floor {floor}, {it}")).collect();
            for (read, right, what) in [(drawing, down, "drawing"), (headings, right, "headings")] {
                let differs = (0..read.len().max(right.len()))
                    .find(|at| read.get(*at).map(|it| &it.1) != right.get(*at));
                let Some(at) = differs else { continue };
                let (line, text) = read.get(at).map_or((start, "nothing"), |(line, it)| (*line, it));
                let wanted = right.get(at).map_or("nothing", |it| it);
                let right = format!("the {what} of {heading} differ from the list: `{wanted}` belongs here");
                found.push(map.finding(line, text, &right));
            }
            for (_, path) in it.rooms.iter().flat_map(|it| &it.files) {
                if !named.contains(path.as_str()) {
                    found.push(map.finding(start, path, "name it under the heading of its floor"));
                }
            }
        }
        found
    }
}

fn is_heading(text: &str, depth_max: usize) -> bool {
    let depth = text.len() - text.trim_start_matches('#').len();
    (1..=depth_max).contains(&depth)
}

impl Crate {
    fn position(&self, path: &str) -> Option<Position<'_>> {
        self.rooms.iter().find_map(|it| {
            let in_room = it.files.iter().position(|(_, listed)| listed == path)?;
            Some(Position { floor: it.floor, room: &it.name, in_room })
        })
    }

    /// The module that a file is, as the names on the way to it.
    fn module_of(&self, path: &str) -> Vec<String> {
        let relative = path.strip_prefix(&format!("{}/", self.root)).unwrap_or(path);
        let mut names: Vec<_> = relative.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        let is_root = names.len() == 1 && ["lib", "main"].contains(&names[0].as_str());
        if is_root || names.last().is_some_and(|it| it == "mod") {
            names.pop();
        }
        names
    }

    fn modules(&self) -> BTreeMap<Vec<String>, String> {
        let files = self.rooms.iter().flat_map(|it| &it.files);
        files.map(|(_, path)| (self.module_of(path), path.clone())).collect()
    }

    fn parent_of(&self, path: &str) -> Option<String> {
        let module = self.module_of(path);
        let (_, parent) = module.split_last()?;
        self.modules().get(parent).cloned()
    }

    fn code(&self, sources: &[File]) -> Code {
        let modules = self.modules();
        let mut code = Code { mentions: BTreeMap::new(), macros: BTreeMap::new(), modules };
        for (module, path) in &code.modules {
            let Some(file) = sources.iter().find(|it| it.path == *path) else { continue };
            let text = file.code();
            let tokens = tokens(&text);
            let exported = tokens.windows(3).filter(|it| it[0].text == "macro_rules");
            if tokens.iter().any(|it| it.text == "macro_export") {
                code.macros.extend(exported.map(|it| (it[2].text.to_owned(), path.clone())));
            }
            code.mentions.insert(path.clone(), mentions(module, &tokens));
        }
        code
    }
}

/// The paths in the files of one crate.
struct Code {
    modules: BTreeMap<Vec<String>, String>,
    /// Macros are exported from the crate's root, wherever they are written.
    macros: BTreeMap<String, String>,
    mentions: BTreeMap<String, Vec<Mention>>,
}

/// A path that stands in a file.
struct Mention {
    line: usize,
    /// The module it stands in: the file's own, or one that is written in the file.
    module: Vec<String>,
    path: Vec<String>,
    /// The name that a `use` gives to the path in its module; none for a path outside a `use`.
    import: Option<String>,
}

/// An import of one file by another.
struct Arrow {
    from: String,
    line: usize,
    to: String,
    names: Vec<String>,
    /// For names that the imported file does not define: the file that defines them.
    origins: Vec<String>,
}

impl Code {
    fn arrows(&self) -> Vec<Arrow> {
        let mut arrows: Vec<Arrow> = Vec::new();
        for (from, mentions) in &self.mentions {
            for mention in mentions {
                let Some(to) = self.target(from, mention).filter(|it| it != from) else { continue };
                // Behind a name that is imported, the import itself is the arrow, unless the path leads on to another file.
                let imported = mention.import.is_none().then(|| self.import(from, mention)).flatten();
                if imported.is_some_and(|it| self.target(from, it).is_some_and(|it| it == to)) {
                    continue;
                }
                let known = arrows.iter().position(|it| it.from == *from && it.to == to);
                let known = known.unwrap_or(arrows.len());
                if known == arrows.len() {
                    let (from, line) = (from.clone(), mention.line);
                    arrows.push(Arrow { from, line, to, names: Vec::new(), origins: Vec::new() });
                }
                let (arrow, name) = (&mut arrows[known], mention.path.last().cloned().unwrap_or_default());
                if !arrow.names.contains(&name) {
                    arrow.names.push(name);
                    arrow.origins.extend(self.origin(from, mention));
                }
            }
        }
        arrows
    }

    /// The file of this crate that a path leads to; none if it leads out of the crate.
    fn target(&self, file: &str, mention: &Mention) -> Option<String> {
        let path = self.absolute(file, mention, 0)?;
        if let [name] = &path[..]
            && let Some(path) = self.macros.get(name)
        {
            return Some(path.clone());
        }
        (0..=path.len()).rev().find_map(|len| self.modules.get(&path[..len]).cloned())
    }

    /// The path from the crate's root on.
    fn absolute(&self, file: &str, mention: &Mention, depth: usize) -> Option<Vec<String>> {
        let (first, rest) = mention.path.split_first()?;
        let below = |module: &[String], rest: &[String]| Some([module, rest].concat());
        let module = &mention.module;
        match first.as_str() {
            "crate" => below(&[], rest),
            "self" => below(module, rest),
            "super" => {
                let ups = mention.path.iter().take_while(|it| *it == "super").count();
                below(&module[..module.len().checked_sub(ups)?], &mention.path[ups..])
            }
            _ if self.modules.contains_key(&below(module, &mention.path[..1])?) => {
                below(module, &mention.path)
            }
            // A name may be imported through other names; no chain of imports is longer than this.
            _ if depth < 4 => {
                let import = self.import(file, mention)?;
                below(&self.absolute(file, import, depth + 1)?, rest)
            }
            _ => None,
        }
    }

    /// The import that brought the first name of a path into its module.
    fn import(&self, file: &str, mention: &Mention) -> Option<&Mention> {
        let first = mention.path.first()?;
        let brings = |it: &&Mention| {
            it.import.as_ref() == Some(first) && it.module == mention.module && it.path.first() != Some(first)
        };
        self.mentions.get(file)?.iter().find(brings)
    }

    /// Where an item comes from that its module only re-exports.
    fn origin(&self, file: &str, mention: &Mention) -> Option<String> {
        let path = self.absolute(file, mention, 0)?;
        let len = (0..=path.len()).rev().find(|len| self.modules.contains_key(&path[..*len]))?;
        let (module, rest) = path.split_at(len);
        let (item, _) = rest.split_first()?;
        let home = self.modules.get(module)?;
        let exports = self.mentions.get(home)?;
        let export = exports.iter().find(|it| it.module == module && it.import.as_ref() == Some(item))?;
        Some(match self.absolute(home, export, 0) {
            Some(path) => format!("crate::{}", path.join("::")),
            None => export.path.join("::"),
        })
    }
}

struct Token<'a> {
    line: usize,
    text: &'a str,
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
            let len = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                len => len,
            };
            let (text, after) = rest.split_at(len);
            tokens.push(Token { line: index + 1, text });
            rest = after.trim_start();
        }
    }
    tokens
}

/// All paths of a file with more than one name, and the imports of one name. `mod x;` is no path, nor is `pub(in path)`.
fn mentions(file: &[String], tokens: &[Token<'_>]) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut module = file.to_vec();
    // How deep in braces the modules begin that are written in the file.
    let (mut depth, mut begins) = (0, Vec::new());
    let at = |index: usize| tokens.get(index).map_or("", |it| it.text);
    let mut index = 0;
    while index < tokens.len() {
        match at(index) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if begins.last() == Some(&depth) {
                    begins.pop();
                    module.pop();
                }
            }
            "mod" if at(index + 2) == "{" => {
                begins.push(depth);
                module.push(at(index + 1).to_owned());
                index += 1;
            }
            // A `use` in a bound names its captures in angle brackets, and is no import.
            "use" if at(index + 1) != "<" => {
                index = use_tree(tokens, index + 1, &[], &module, &mut mentions);
                continue;
            }
            "in" if at(index.wrapping_sub(1)) == "(" && at(index.wrapping_sub(2)) == "pub" => {
                while index < tokens.len() && at(index) != ")" {
                    index += 1;
                }
            }
            first if first.starts_with(is_word) && at(index + 1) == "::" => {
                let line = tokens[index].line;
                let before = at(index.wrapping_sub(1));
                let mut path = vec![first.to_owned()];
                while at(index + 1) == "::" && at(index + 2).starts_with(is_word) {
                    path.push(at(index + 2).to_owned());
                    index += 2;
                }
                let is_start = before != "::" && (before != "$" || first == "crate");
                if is_start {
                    mentions.push(Mention { line, module: module.clone(), path, import: None });
                }
            }
            _ => {}
        }
        index += 1;
    }
    mentions
}

/// One branch of a `use`, from this token on; gives where it ends.
fn use_tree(
    tokens: &[Token<'_>],
    mut index: usize,
    prefix: &[String],
    module: &[String],
    mentions: &mut Vec<Mention>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut name = None;
    let line = tokens.get(index).map_or(0, |it| it.line);
    while let Some(token) = tokens.get(index) {
        match token.text {
            "{" => {
                index += 1;
                while tokens.get(index).is_some_and(|it| it.text != "}") {
                    index = use_tree(tokens, index, &path, module, mentions);
                    index += usize::from(tokens.get(index).is_some_and(|it| it.text == ","));
                }
                return index + 1;
            }
            "," | "}" | ";" => break,
            "as" => {
                name = tokens.get(index + 1).map(|it| it.text.to_owned());
                index += 1;
            }
            // A path that begins so leads out of the crate, whatever its first name is here.
            "::" if path.is_empty() => path.push(String::new()),
            "::" | "$" => {}
            "self" if !path.is_empty() => {}
            text => path.push(text.to_owned()),
        }
        index += 1;
    }
    if !path.is_empty() {
        let import = name.or_else(|| path.last().cloned());
        mentions.push(Mention { line, module: module.to_vec(), path, import });
    }
    index
}

/// The floors are tried on a crate of two rooms, one room above them, and a root.
#[test]
fn the_floors_let_imports_down_and_nothing_up_or_across() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let list = "a/src # A crate.\n  1 low\n    low/x.rs\n    low.rs\n  1 side\n    side.rs\n  2 high\n    high/one.rs\n    \
        high/two.rs\n    high.rs\n  3 root\n    lib.rs\n";
    let floors = |list: &str| Floors::read(file("floors.txt", list));
    let upwards = |path: &str, text: &str| {
        let mut sources = vec![
            file("a/src/lib.rs", "mod high;\nmod low;\npub use {bytes::Bytes, low::X};"),
            file("a/src/low.rs", "mod x;\npub use x::X;"),
            file("a/src/low/x.rs", "#[macro_export]\nmacro_rules! made { () => { $crate::low::x::X } }"),
            file("a/src/side.rs", ""),
            file("a/src/high.rs", "mod one;\nmod two;\nuse two::Two as Second;"),
            file("a/src/high/one.rs", ""),
            file("a/src/high/two.rs", ""),
        ];
        sources.iter_mut().find(|it| it.path == path).expect("the file is there").text = text.into();
        let found = floors(list).upwards(&sources).into_iter();
        found.map(|it| format!("{} {} {}", it.line, it.what, it.right)).collect::<Vec<_>>()
    };
    let starts = |found: Vec<String>, starts: &[&str]| {
        let are_right = found.iter().zip(starts).all(|(found, start)| found.starts_with(start));
        assert!(are_right && found.len() == starts.len(), "{found:#?} are not {starts:#?}");
    };

    // Down, in every form; and names that only look as if they led up.
    for text in [
        "use crate::low::{self, x::{X as Y, *}};\nuse crate::side::*;\nfn f() { low::x::g(); crate::side::h::<Y>(); }",
        "use super::one::{self, One};\nfn f() { one::g(); super::one::h(); self::own(); crate::made!(); }",
        "use ::high::three;\nuse lib::high;\npub(in crate::high) fn f() { high::f(); let a = b.high::<u8>(); }",
        "// crate::high::f()\nconst A: &str = \"crate::high::f()\";\n#[cfg(test)]\npub(super) mod tests { use crate::X; }",
        "fn f<'a>() -> impl Sized + use<'a> { mod inner { use super::super::one::f; use super::g; } }",
    ] {
        starts(upwards("a/src/high/two.rs", text), &[]);
    }
    starts(upwards("a/src/lib.rs", "use crate::high::two::A;\nuse low::x::B;\nfn f() { side::c(); }"), &[]);

    // Up to a floor, to the root, to a module's own file, within a room; and across.
    let text = "use crate::{\n  high::{self, one::One as First},\n  side::*,\n};\nfn f() { high::two::g(); high::h(); }";
    let found = [
        "2 a/src/high.rs imports `high` of this file, which stands above (floor 2 over 1): move",
        "2 a/src/high/one.rs imports `One` of this file, which stands above (floor 2 over 1): move",
        "3 a/src/side.rs imports `*` of this file, of another room on floor 1: side beside low: move",
        "5 a/src/high/two.rs imports `g` of this file, which stands above (floor 2 over 1): move",
    ];
    starts(upwards("a/src/low/x.rs", text), &found);
    let found =
        ["1 a/src/lib.rs imports `X`, `Bytes` of this file, which stands above (floor 3 over 1): write \
        `crate::low::X`, `bytes::Bytes`"];
    starts(upwards("a/src/side.rs", "use crate::X;\nfn f(_: crate::Bytes) {}"), &found);
    let found = [
        "1 a/src/high/two.rs imports `Two` of this file, which stands above in the same room, high: move",
        "2 a/src/high.rs imports `Second`, `f` of this file, which stands above in the same room, high: write \
            `crate::high::two::Two`, and move",
    ];
    let text = "use super::two::Two;\nuse super::Second;\nmod inner { use super::super::f; }";
    starts(upwards("a/src/high/one.rs", text), &found);
    starts(upwards("a/src/side.rs", "crate::made!();"), &["1 a/src/low/x.rs imports `made`"]);

    // The list itself.
    let sources: Vec<String> =
        ["low/x.rs", "low.rs", "side.rs", "high/one.rs", "high/two.rs", "high.rs", "lib.rs"]
            .map(|it| format!("a/src/{it}"))
            .into();
    let wrong = |list: &str| {
        let found = floors(list).wrong(&sources).into_iter();
        found.map(|it| format!("{} {}", it.line, it.what)).collect::<Vec<_>>()
    };
    starts(wrong(list), &[]);
    starts(wrong(&list.replace("    side.rs\n", "")), &["1 a/src/side.rs"]);
    starts(wrong(&list.replace("side.rs", "side.rs\n    low.rs")), &["7 a/src/low.rs"]);
    starts(wrong(&list.replace("side.rs", "side.rs\n    sides.rs")), &["7 a/src/sides.rs"]);
    starts(wrong(&list.replace("3 root", "4 root")), &["11 4 root"]);
    starts(wrong(&list.replace("1 side", "1 low")), &["5 1 low"]);
    starts(
        wrong(&list.replace("high/two.rs\n    high.rs", "high.rs\n    high/two.rs")),
        &["10 a/src/high/two.rs"],
    );
    starts(wrong(&list.replace("1 side", "side")), &["5 side"]);

    // The map.
    let map = "### a/\n\n```text\nfloor 3  root  the names\nfloor 2  high  above\nfloor 1  low   below\n         side  \
        beside\n```\n\n#### Floor 1, low\n- `a/src/low.rs`, `a/src/low/x.rs`\n#### Floor 1, side\n- `a/src/side.rs`\n\
        #### Floor 2, high\n- `a/src/high.rs` `a/src/high/one.rs` `a/src/high/two.rs`\n#### Floor 3, root\n\
        - `a/src/lib.rs`\n### b/\n`a/src/low.rs`\n";
    let off = |map: &str| {
        let found = floors(list).off_the_map(&file("map.md", map)).into_iter();
        found.map(|it| format!("{} {}", it.line, it.what)).collect::<Vec<_>>()
    };
    starts(off(map), &[]);
    starts(off(&map.replace("floor 2  high", "floor 2  side")), &["5 Floor 2, side"]);
    starts(
        off(&map.replace("#### Floor 1, side\n", "")),
        &["12 a/src/side.rs", "13 Floor 2, high", "1 a/src/side.rs"],
    );
    starts(off(&map.replace("`a/src/side.rs`", "`a/src/side.rs` `a/src/side.rs`")), &["13 a/src/side.rs"]);
    starts(off(&map.replace(" `a/src/high/one.rs`", "")), &["1 a/src/high/one.rs"]);
    starts(
        off(&map.replace(", side\n", ", aside\n")),
        &["13 a/src/side.rs", "12 Floor 1, aside", "1 a/src/side.rs"],
    );
}
