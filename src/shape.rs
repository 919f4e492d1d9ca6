//! The shape of an action: the JSON Schemas of its arguments and its reply, where the types have some.

use meshwork_wire::Shape;
use std::marker::PhantomData;

/// Finds out whether a type has a JSON Schema. The compiler looks for methods of `Probe` before methods of `&Probe`, so
/// [`WithSchema`] wins where it is implemented.
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    /// A probe of the type `T`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only made code calls it")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// For types that implement `schemars::JsonSchema`.
pub trait WithSchema {
    /// The JSON Schema, as text.
    fn schema(&self) -> Option<String>;
}

/// For all other types.
pub trait WithoutSchema {
    /// Always none.
    fn schema(&self) -> Option<String> {
        None
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> WithSchema for Probe<T> {
    fn schema(&self) -> Option<String> {
        serde_json::to_string(schemars::schema_for!(T).as_value()).ok()
    }
}

impl<T> WithoutSchema for &Probe<T> {}

/// The shape of an action, if the schemas of its arguments and its reply are known.
#[must_use]
pub fn shape_of(arguments: Option<String>, reply: Option<String>) -> Option<Shape> {
    Some(Shape { arguments: arguments?.into(), reply: reply?.into() })
}

/// The shape of an action from the types of its arguments and its reply.
#[cfg(feature = "schema")]
pub(crate) fn shape_of_types<A: schemars::JsonSchema, R: schemars::JsonSchema>() -> Option<Shape> {
    shape_of(Probe::<A>::new().schema(), Probe::<R>::new().schema())
}

/// The schema of a record with these fields, made of the schema of the tuple of their types. A field that may be null may be left out.
#[cfg(feature = "schema")]
#[must_use]
pub fn record_of(names: &[&str], tuple: &str) -> Option<String> {
    use serde_json::{Map, Value, json};
    let mut schema: Map<String, Value> = serde_json::from_str(tuple).ok()?;
    let Some(types) = schema.remove("prefixItems") else {
        return names.is_empty().then(|| json!({ "type": "object", "properties": {} }).to_string());
    };
    let types = types.as_array()?;
    let takes_null = |schema: &Value| {
        let is_null = |schema: &Value| schema["type"] == "null" || schema == "null";
        let any = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(is_null));
        is_null(schema) || any(&schema["type"]) || any(&schema["anyOf"])
    };
    let fields = || names.iter().zip(types);
    let required: Vec<_> = fields().filter(|(_, schema)| !takes_null(schema)).map(|(name, _)| name).collect();
    // Written by hand, in the order of the parameters: a map of serde_json has the order of the alphabet.
    let properties: Vec<_> = fields().map(|(name, schema)| format!("{}:{schema}", json!(name))).collect();
    for gone in ["minItems", "maxItems", "title", "type"] {
        schema.remove(gone);
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
    let rest = Value::Object(schema).to_string();
    Some(format!(
        r#"{{"type":"object","properties":{{{}}},"required":{},{}"#,
        properties.join(","),
        json!(required),
        &rest[1..]
    ))
}

/// No schema.
#[cfg(not(feature = "schema"))]
#[must_use]
pub fn record_of(_: &[&str], _: &str) -> Option<String> {
    None
}
