//! The shape of an action in a few words: `orders/place(order: {item: string, count: integer}) -> {id: integer}`, out of the JSON Schemas of
//! its arguments and its reply. Another node wrote them: what refers to itself ends, and what is too long is cut.

use crate::output::json;
use meshwork::Value;

/// How long the text of one schema may be, in bytes. A schema of a few bytes may name a part of itself any number of times.
const SCHEMA_LEN_MAX: usize = 2 * 1024;

/// How many references in a row lead from one schema to another one.
const REFERENCES_MAX: usize = 16;

/// The name of an action with the types of its arguments and its reply.
pub(super) fn signature(action: &str, arguments: &Value, reply: &Value) -> String {
    let mut taken = Words::new(arguments);
    taken.parameters();
    let mut given = Words::new(reply);
    given.schema(reply);
    format!("{action}({}) -> {}", taken.said, given.said)
}

struct Words<'s> {
    /// The whole schema, which references start at.
    root: &'s Value,
    /// The references that lead to the part that is being written.
    within: Vec<&'s str>,
    said: String,
}

impl<'s> Words<'s> {
    fn new(root: &'s Value) -> Self {
        Self { root, within: Vec::new(), said: String::new() }
    }

    fn say(&mut self, words: &str) {
        self.said.push_str(words);
    }

    /// The arguments of an action: those of a record by name, those of a list in order, or the only one.
    fn parameters(&mut self) {
        let mut schema = self.root;
        for _ in 0..REFERENCES_MAX {
            match at(schema, "$ref") {
                Some(Value::Text(reference)) => schema = self.follow(reference).unwrap_or(&Value::Nil),
                _ => break,
            }
        }
        if let Some(Value::Map(fields)) = at(schema, "properties") {
            self.fields(schema, fields);
        } else if let Some(Value::List(elements)) = at(schema, "prefixItems") {
            self.each(elements, ", ");
        } else if !matches!(at(schema, "type"), Some(Value::Text(kind)) if kind == "null") {
            self.schema(schema);
        }
    }

    /// The part of the schema that a reference such as `#/$defs/Order` leads to.
    fn follow(&self, reference: &str) -> Option<&'s Value> {
        let path = reference.strip_prefix('#')?;
        path.split('/').skip(1).try_fold(self.root, |part, step| {
            let step = step.replace("~1", "/").replace("~0", "~");
            at(part, &step)
        })
    }

    fn each(&mut self, schemas: &'s [Value], between: &str) {
        for (index, schema) in schemas.iter().enumerate() {
            if index > 0 {
                self.say(between);
            }
            if self.is_cut() {
                return;
            }
            self.schema(schema);
        }
    }

    fn fields(&mut self, schema: &'s Value, fields: &'s [(Value, Value)]) {
        let required = list(at(schema, "required"));
        for (index, (name, field)) in fields.iter().enumerate() {
            if index > 0 {
                self.say(", ");
            }
            if self.is_cut() {
                return;
            }
            let optional = if required.contains(name) { "" } else { "?" };
            match name {
                Value::Text(plain) if plain.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                    self.say(plain)
                }
                name => self.value(name),
            }
            self.say(optional);
            self.say(": ");
            self.schema(field);
        }
        if let Some(more @ Value::Map(_)) = at(schema, "additionalProperties") {
            self.say(if fields.is_empty() { "any: " } else { ", any: " });
            self.schema(more);
        }
    }

    /// Whether there is no room for more. The place where words are missing shows it.
    fn is_cut(&mut self) -> bool {
        let is_cut = self.said.len() > SCHEMA_LEN_MAX;
        if is_cut && !self.said.ends_with('…') {
            self.say("…");
        }
        is_cut
    }

    fn value(&mut self, value: &Value) {
        let written = json(value).unwrap_or_default();
        self.say(&written);
    }

    fn schema(&mut self, schema: &'s Value) {
        if self.is_cut() {
            return;
        }
        if let Some(Value::Text(reference)) = at(schema, "$ref") {
            return self.reference(reference);
        }
        if let Some(value) = at(schema, "const") {
            return self.value(value);
        }
        for (key, between) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
            if let Some(Value::List(schemas)) = at(schema, key) {
                return self.each(schemas, between);
            }
        }
        if let Some(Value::List(values)) = at(schema, "enum") {
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    self.say(" | ");
                }
                if self.is_cut() {
                    return;
                }
                self.value(value);
            }
            return;
        }
        match at(schema, "type") {
            Some(Value::Text(kind)) => self.kind(kind, schema),
            Some(Value::List(kinds)) => {
                for (index, kind) in kinds.iter().enumerate() {
                    if index > 0 {
                        self.say(" | ");
                    }
                    if let Value::Text(kind) = kind {
                        self.kind(kind, schema);
                    }
                }
            }
            _ if at(schema, "properties").is_some() => self.kind("object", schema),
            _ if at(schema, "prefixItems").or(at(schema, "items")).is_some() => self.kind("array", schema),
            _ => self.say(if *schema == Value::Bool(false) { "nothing" } else { "any" }),
        }
    }

    fn reference(&mut self, reference: &'s str) {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        match self.follow(reference) {
            Some(part) if !self.within.contains(&reference) => {
                self.within.push(reference);
                self.schema(part);
                self.within.pop();
            }
            _ => self.say(if name == "#" { "itself" } else { name }),
        }
    }

    fn kind(&mut self, kind: &str, schema: &'s Value) {
        match kind {
            "object" => {
                let fields = match at(schema, "properties") {
                    Some(Value::Map(fields)) => &fields[..],
                    _ => &[],
                };
                self.say("{");
                self.fields(schema, fields);
                self.say("}");
            }
            "array" => {
                self.say("[");
                match (at(schema, "prefixItems"), at(schema, "items")) {
                    (Some(Value::List(elements)), _) => self.each(elements, ", "),
                    (_, Some(element)) => {
                        self.schema(element);
                        self.say(", ..");
                    }
                    _ => self.say("any, .."),
                }
                self.say("]");
            }
            kind => self.say(kind),
        }
    }
}

fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let Value::Map(entries) = value else { return None };
    let found = entries.iter().find(|(name, _)| matches!(name, Value::Text(name) if name == key));
    found.map(|(_, value)| value)
}

fn list(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::List(values)) => values,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork::{Encoding, Payload};

    fn said(arguments: &str, reply: &str) -> String {
        let read =
            |schema: &str| Payload::new(Encoding::Json, schema.to_owned()).decode().expect("it is JSON");
        signature("act", &read(arguments), &read(reply))
    }

    #[test]
    fn names_and_types_are_said_and_references_followed() {
        let arguments = r##"{"$defs":{"Order":{"type":"object","required":["item","count"],
            "properties":{"item":{"type":"string"},"count":{"type":"integer"},"note":{"type":["string","null"]}}}},
            "type":"object","required":["order"],"properties":{"order":{"$ref":"#/$defs/Order"}}}"##;
        let reply = r#"{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}"#;
        let expected = "act(order: {item: string, count: integer, note?: string | null}) -> {id: integer}";
        assert_eq!(said(arguments, reply), expected);
    }

    #[test]
    fn every_kind_of_schema_has_words() {
        let pair = r#"{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}]}"#;
        assert_eq!(said(pair, pair), "act(integer, string) -> [integer, string]");
        assert_eq!(said(r#"{"type":"null"}"#, r#"{"type":"null"}"#), "act() -> null");
        assert_eq!(said(r#"{"type":"integer"}"#, "true"), "act(integer) -> any");
        assert_eq!(
            said(r#"{"type":"array","items":{"type":"number"}}"#, "false"),
            "act([number, ..]) -> nothing"
        );
        let one_of =
            r#"{"oneOf":[{"const":"a"},{"enum":["b",2]},{"type":"object","properties":{"C d":{}}}]}"#;
        assert_eq!(said("{}", one_of), r#"act(any) -> "a" | "b" | 2 | {"C d"?: any}"#);
        let map = r#"{"type":"object","additionalProperties":{"type":"boolean"}}"#;
        assert_eq!(said(map, map), "act({any: boolean}) -> {any: boolean}");
        assert_eq!(said("null", "7"), "act(any) -> any");
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let tree =
            r##"{"$defs":{"Tree":{"type":"array","items":{"$ref":"#/$defs/Tree"}}},"$ref":"#/$defs/Tree"}"##;
        assert_eq!(said("true", tree), "act(any) -> [Tree, ..]");
        assert_eq!(said(tree, r##"{"$ref":"#"}"##), "act([[Tree, ..], ..]) -> itself");
        let circle = r##"{"$defs":{"A":{"$ref":"#/$defs/B"},"B":{"$ref":"#/$defs/A"}},"$ref":"#/$defs/A"}"##;
        assert_eq!(said(circle, circle), "act(A) -> A");
        assert_eq!(
            said(r##"{"$ref":"#/$defs/None"}"##, r##"{"$ref":"elsewhere"}"##),
            "act(any) -> elsewhere"
        );
    }

    #[test]
    fn a_schema_that_repeats_itself_is_cut() {
        let mut schema = String::from(r##"{"$defs":{"D0":{"type":"integer"}"##);
        for level in 1..60 {
            let below = format!(r##"{{"$ref":"#/$defs/D{}"}}"##, level - 1);
            schema += &format!(r##","D{level}":{{"prefixItems":[{below},{below}]}}"##);
        }
        schema += r##"},"$ref":"#/$defs/D59"}"##;
        let said = said("true", &schema);
        assert!(said.len() < 2 * SCHEMA_LEN_MAX && said.contains('…'), "{}", said.len());
    }
}
