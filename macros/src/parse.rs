//! From the trait as it was written to the model that [`expand`](crate::expand) writes out. All faults of a trait are found here in
//! one go, and each error points at its tokens.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use std::fmt::Display;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    AttrStyle, Attribute, Block, FnArg, GenericArgument, Generics, Ident, Item, ItemTrait, LitStr, Meta, Pat,
    PatIdent, PatType, Path, PathArguments, Receiver, ReceiverKind, ReturnType, Safety, Signature, Token,
    TraitItem, TraitItemFn, Type, TypeParamBound, Visibility, parse_quote,
};

/// The most arguments of one action: tuples up to this size can be compared and shown with the traits of the standard
/// library, and every encoding takes them.
const ARGUMENTS_MAX: usize = 12;

/// A trait of actions without a fault.
pub(crate) struct Actions {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) ident: Ident,
    pub(crate) supertraits: Vec<TypeParamBound>,
    pub(crate) methods: Vec<Action>,
}

/// A method of the trait, which is an action.
pub(crate) struct Action {
    /// The attributes of the method, without `#[action]`.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) fn_token: Token![fn],
    pub(crate) ident: Ident,
    /// The whole name of the action, with the prefix.
    pub(crate) name: String,
    /// The parameters after `&self`, in their order.
    pub(crate) parameters: Vec<Parameter>,
    /// `Result<T, ActionError>`, as it was written.
    pub(crate) output: Type,
    /// The `T` in `output`.
    pub(crate) reply: Type,
    /// The error in `output`, if it is not `ActionError`.
    pub(crate) own_error: Option<Type>,
    /// Whether it is a plain `fn`, which runs where it may block its thread.
    pub(crate) is_blocking: bool,
    pub(crate) body: Option<Block>,
}

/// One parameter of a method.
pub(crate) struct Parameter {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) kind: ParameterKind,
    /// The value of an argument that is not sent, as an attribute of serde.
    pub(crate) default: Option<Attribute>,
}

/// Where the value of a parameter comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterKind {
    /// From the caller.
    Argument,
    /// From the provider: a `CallContext`.
    Context,
}

/// An item with faults.
pub(crate) struct Refused {
    /// All errors, combined.
    pub(crate) error: syn::Error,
    /// The trait as it was written, without the attributes that only the macro understands. It is written out, so that the
    /// compiler does not report its implementations too.
    pub(crate) kept: Option<Box<ItemTrait>>,
}

/// Reads the arguments of the attribute, and the item below it.
///
/// # Errors
///
/// All faults of the arguments and the item.
pub(crate) fn parse(attribute: TokenStream, item: TokenStream) -> Result<Actions, Refused> {
    let mut errors = Errors::default();
    let prefix = read_prefix(attribute, &mut errors);
    let not_a_trait = match syn::parse2::<Item>(item) {
        Ok(Item::Trait(item)) => {
            let kept = item.clone();
            let actions = read_trait(item, prefix.as_deref(), &mut errors);
            return match errors.combined() {
                None => Ok(actions),
                Some(error) => Err(Refused { error, kept: Some(Box::new(without_action_attributes(kept))) }),
            };
        }
        Ok(_) => {
            let message = "`#[meshwork::actions]` belongs on a trait: each of its methods is an action";
            syn::Error::new(Span::call_site(), message)
        }
        Err(error) => error,
    };
    Err(Refused { error: errors.and(not_a_trait), kept: None })
}

fn without_action_attributes(mut item: ItemTrait) -> ItemTrait {
    for inner in &mut item.items {
        let TraitItem::Fn(method) = inner else { continue };
        method.attrs.retain(|attribute| !is_action_attribute(attribute));
        if method.default.is_some() {
            continue;
        }
        for input in &mut method.sig.inputs {
            // The compiler reports a pattern in a method without a body; a second error would say no more.
            if let FnArg::Typed(typed) = input
                && plain_name(&typed.pat).is_none()
            {
                *typed.pat = parse_quote!(_);
            }
        }
    }
    item
}

/// The errors, in the order of the source.
#[derive(Default)]
pub(crate) struct Errors(Vec<syn::Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    fn at_span(&mut self, span: Span, message: impl Display) {
        self.push(syn::Error::new(span, message));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn combined(self) -> Option<syn::Error> {
        self.0.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        })
    }

    fn and(self, last: syn::Error) -> syn::Error {
        match self.combined() {
            Some(mut all) => {
                all.combine(last);
                all
            }
            None => last,
        }
    }
}

fn read_prefix(attribute: TokenStream, errors: &mut Errors) -> Option<String> {
    let read = |input: ParseStream<'_>| read_keys(input, "prefix");
    match read.parse2(attribute) {
        Ok(prefix) => prefix.and_then(|prefix| checked_name(&prefix, "prefix", errors)),
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

/// Reads `key = ".."`, the only key that there is, at most once.
fn read_keys(input: ParseStream<'_>, key: &str) -> syn::Result<Option<LitStr>> {
    let mut value = None;
    while !input.is_empty() {
        if !input.peek(Ident::peek_any) {
            return Err(input.error(format!("write `{key} = \"..\"`")));
        }
        let found = input.call(Ident::parse_any)?;
        if found != key {
            let message = format!("unknown key `{found}`: the only one is `{key} = \"..\"`");
            return Err(syn::Error::new_spanned(found, message));
        }
        if value.is_some() {
            return Err(syn::Error::new_spanned(found, format!("`{key}` is given twice")));
        }
        input.parse::<Token![=]>()?;
        value = Some(input.parse()?);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(value)
}

fn is_action_attribute(attribute: &Attribute) -> bool {
    attribute.path().is_ident("action")
}

/// A part of an action's name, if it has no empty segment. The other rules of names are checked when the action is offered.
fn checked_name(literal: &LitStr, what: &str, errors: &mut Errors) -> Option<String> {
    let name = literal.value();
    if name.is_empty() {
        errors.at(literal, format!("the {what} is empty"));
    } else if name.starts_with('/') || name.ends_with('/') {
        errors.at(literal, format!("the {what} starts or ends with a `/`: write `a/b`, slashes only join"));
    } else if name.contains("//") {
        errors.at(literal, format!("the {what} has nothing between two slashes: write `a/b`"));
    } else {
        return Some(name);
    }
    None
}

fn read_trait(item: ItemTrait, prefix: Option<&str>, errors: &mut Errors) -> Actions {
    if let Some(auto) = item.modifiers.auto_token {
        errors.at(auto, "a trait of actions cannot be `auto`");
    }
    if let Some(unsafety) = item.unsafety {
        errors.at(unsafety, "a trait of actions cannot be `unsafe`: its callers are on other machines");
    }
    refuse_generics(&item.generics, "a trait of actions", errors);
    if item.items.is_empty() {
        errors.at(&item.ident, "the trait has no methods, so there would be no actions");
    }
    let mut methods: Vec<Action> = Vec::new();
    for inner in item.items {
        let Some((action, named_at)) = read_item(inner, prefix, errors) else { continue };
        // With `cfg` on both methods, at most one may be left: the compiler reports the rest.
        if let Some(first) =
            methods.iter().find(|other| other.name == action.name && !(has_cfg(other) && has_cfg(&action)))
        {
            let message = format!("`{}` is already the action of `{}`", action.name, first.ident.unraw());
            errors.at(named_at, message);
        }
        methods.push(action);
    }
    Actions {
        attributes: item.attrs,
        visibility: item.vis,
        ident: item.ident,
        supertraits: item.supertraits.into_iter().collect(),
        methods,
    }
}

fn has_cfg(action: &Action) -> bool {
    action.attributes.iter().any(|attribute| attribute.path().is_ident("cfg"))
}

/// Reads one item of the trait. Gives the action, and the tokens of its name for errors.
fn read_item(item: TraitItem, prefix: Option<&str>, errors: &mut Errors) -> Option<(Action, TokenStream)> {
    match item {
        TraitItem::Fn(method) => read_method(method, prefix, errors),
        TraitItem::Const(item) => {
            errors.at(
                item.ident,
                "a trait of actions has no associated constants: a requester could not know them",
            );
            None
        }
        TraitItem::Type(item) => {
            errors.at(
                item.ident,
                "a trait of actions has no associated types: a requester could not know them",
            );
            None
        }
        other => {
            errors.at(other, "a trait of actions has methods only");
            None
        }
    }
}

fn read_method(
    method: TraitItemFn,
    prefix: Option<&str>,
    errors: &mut Errors,
) -> Option<(Action, TokenStream)> {
    let TraitItemFn { attrs, modifiers, sig, default, .. } = method;
    if let Some(token) = modifiers.defaultness {
        errors.at(token, "an action cannot be `default`");
    }
    let (mut name, mut is_blocking) = (None, false);
    let mut attributes = Vec::with_capacity(attrs.len());
    for mut attribute in attrs {
        if !is_action_attribute(&attribute) {
            // An inner attribute of the body becomes an outer attribute, which the expansion can write.
            attribute.style = AttrStyle::Outer;
            attributes.push(attribute);
            continue;
        }
        let mut says_nothing = true;
        let read = attribute.parse_nested_meta(|meta| {
            says_nothing = false;
            if meta.path.is_ident("blocking") {
                is_blocking = true;
                return Ok(());
            }
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown key: write `name = \"..\"` or `blocking`"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            if name.is_some() {
                return Err(meta.error("the action is named twice"));
            }
            name = Some(literal);
            Ok(())
        });
        match read {
            Ok(()) if says_nothing => {
                let message =
                    "`#[action]` says nothing: write `#[action(name = \"..\")]` or `#[action(blocking)]`";
                errors.at(attribute, message);
            }
            read => read.unwrap_or_else(|error| errors.push(error)),
        }
    }
    check_signature(&sig, is_blocking, errors);
    // All parts are read before a fault ends the reading, so that one fault hides no other.
    let (own, named_at) = match name {
        Some(literal) => (checked_name(&literal, "name", errors), literal.to_token_stream()),
        None => (Some(sig.ident.unraw().to_string()), sig.ident.to_token_stream()),
    };
    let parameters = read_parameters(&sig, errors);
    let (output, reply, own_error) = read_output(&sig, errors)?;
    if is_blocking && streamed(&reply).is_some() {
        errors.at(
            &reply,
            format!("a stream is made as it is read, and blocks no thread: write `async fn {}`", sig.ident),
        );
    }
    let own = own?;
    let name = prefix.map_or_else(|| own.clone(), |prefix| format!("{prefix}/{own}"));
    let action = Action {
        attributes,
        fn_token: sig.fn_token,
        ident: sig.ident,
        name,
        parameters,
        output,
        reply,
        own_error,
        is_blocking,
        body: default,
    };
    Some((action, named_at))
}

/// Checks a signature without its parameters and its return type.
fn check_signature(sig: &Signature, is_blocking: bool, errors: &mut Errors) {
    if sig.ident == "into_responders" {
        errors.at(
            &sig.ident,
            "`into_responders` is what the macro adds to the trait: give the method another name",
        );
    }
    if sig.ident == "new" {
        let message = "`new` makes the requester: give the method another name, and the action its own by `#[action(name = \"new\")]`";
        errors.at(&sig.ident, message);
    }
    if let Some(token) = sig.constness {
        errors.at(token, "an action cannot be `const`");
    }
    let safety = match &sig.safety {
        Safety::Unsafe(token) => Some(token.span),
        Safety::Safe(token) => Some(token.span),
        Safety::Default => None,
    };
    if let Some(span) = safety {
        errors.at_span(span, "an action is neither `unsafe` nor `safe`: its callers are on other machines");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "an action has no ABI of its own");
    }
    match &sig.asyncness {
        None if !is_blocking => {
            let message = format!(
                "an action is asynchronous: write `async fn {0}`, or `#[action(blocking)] fn {0}` if it blocks its thread or takes long to compute",
                sig.ident
            );
            errors.at(sig.fn_token, message);
        }
        Some(token) if is_blocking => {
            errors
                .at(token, "a blocking action is a plain `fn`: it may block its thread, and awaits nothing");
        }
        _ => {}
    }
    refuse_generics(&sig.generics, "an action", errors);
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic.dots, "an action has a fixed number of arguments");
    }
    match sig.receiver() {
        None => errors.at(&sig.ident, "an action takes `&self`: it is answered by the value that offers it"),
        Some(receiver) => check_receiver(receiver, errors),
    }
}

fn check_receiver(receiver: &Receiver, errors: &mut Errors) {
    for attribute in &receiver.attrs {
        errors.at(attribute, "`&self` takes no attributes here");
    }
    match &receiver.kind {
        ReceiverKind::Reference(_, None, None) => {}
        ReceiverKind::Reference(_, Some(lifetime), None) => {
            errors.at(lifetime, "an action takes `&self`, without a lifetime of its own");
        }
        ReceiverKind::Reference(..) => {
            let message = "an action takes `&self`: several requests are answered at once, so what changes needs a `Mutex` or an actor";
            errors.at(receiver, message);
        }
        _ => errors.at(receiver, "an action takes `&self`: one value answers all requests"),
    }
}

pub(crate) fn refuse_generics(generics: &Generics, what: &str, errors: &mut Errors) {
    if !generics.params.is_empty() {
        let message = format!("{what} has no generics: a name on the wire stands for one list of types");
        errors.at(&generics.params, message);
    }
    if let Some(clause) = &generics.where_clause {
        errors.at(
            clause.where_token,
            format!("{what} has no `where` clause: it has no generics to say something about"),
        );
    }
}

fn read_parameters(sig: &Signature, errors: &mut Errors) -> Vec<Parameter> {
    let mut parameters: Vec<Parameter> = Vec::with_capacity(sig.inputs.len());
    let mut arguments = 0;
    for input in &sig.inputs {
        let FnArg::Typed(typed) = input else { continue };
        let ident = argument_name(typed, errors);
        let kind =
            if is_named(&typed.ty, "CallContext") { ParameterKind::Context } else { ParameterKind::Argument };
        match kind {
            ParameterKind::Context => {
                if parameters.iter().any(|other| other.kind == ParameterKind::Context) {
                    errors.at(typed, "a call has one context: take one `CallContext`");
                }
            }
            ParameterKind::Argument => {
                arguments += 1;
                if arguments == ARGUMENTS_MAX + 1 {
                    let message = format!(
                        "an action has at most {ARGUMENTS_MAX} arguments: make them the fields of a struct"
                    );
                    errors.at(typed, message);
                }
                Travels { what: "an argument", errors }.visit_type(&typed.ty);
            }
        }
        let default = typed.attrs.iter().find(|attribute| is_default(attribute)).cloned();
        parameters.extend(ident.map(|ident| Parameter { ident, ty: Type::clone(&typed.ty), kind, default }));
    }
    parameters
}

fn argument_name(typed: &PatType, errors: &mut Errors) -> Option<Ident> {
    for attribute in typed.attrs.iter().filter(|attribute| !is_default(attribute)) {
        let message =
            "an argument takes no attributes but `#[serde(default)]`: both ends must agree on all others";
        errors.at(attribute, message);
    }
    let name = plain_name(&typed.pat);
    if name.is_none() {
        errors.at(&typed.pat, "an argument has a plain name here: it names the requester's argument, too");
    }
    name.cloned()
}

/// Whether the attribute is `#[serde(default)]` or `#[serde(default = "..")]`.
fn is_default(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    let parts = parse.parse2(list.tokens.clone());
    attribute.path().is_ident("serde")
        && parts.is_ok_and(|parts| parts.len() == 1 && parts[0].path().is_ident("default"))
}

fn plain_name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(PatIdent { by_ref: None, mutability: None, subpat: None, ident, .. }) => Some(ident),
        _ => None,
    }
}

/// Reads `Result<T, ActionError>`: the whole type, the `T` in it, and the error if it is another one.
fn read_output(sig: &Signature, errors: &mut Errors) -> Option<(Type, Type, Option<Type>)> {
    const EXPECTED: &str = "an action returns `Result<T, ActionError>`";
    let ReturnType::Type(_, output) = &sig.output else {
        errors.at(
            &sig.ident,
            format!("{EXPECTED}: if there is nothing to reply, write `-> Result<(), ActionError>`"),
        );
        return None;
    };
    let result =
        named_path(output).and_then(|path| path.segments.last()).filter(|segment| segment.ident == "Result");
    let types: Option<Vec<&Type>> = result.and_then(|segment| match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().map(as_type).collect(),
        _ => None,
    });
    let Some([reply, error]) = types.as_deref() else {
        errors.at(output, format!("{EXPECTED}, with both types written out"));
        return None;
    };
    Travels { what: "a reply", errors }.visit_type(reply);
    let own_error = (!is_named(error, "ActionError")).then(|| Type::clone(error));
    Some((Type::clone(output), Type::clone(reply), own_error))
}

/// The type of the items of a `Streaming`, as far as its path says that it is one.
pub(crate) fn streamed(reply: &Type) -> Option<&Type> {
    let last = named_path(reply)?.segments.last().filter(|last| last.ident == "Streaming")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(item)) if arguments.args.len() == 1 => Some(item),
        _ => None,
    }
}

fn as_type(argument: &GenericArgument) -> Option<&Type> {
    match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }
}

pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    named_path(ty).and_then(|path| path.segments.last()).is_some_and(|segment| segment.ident == name)
}

/// The path of a type, if the type is a path. A type that came out of another macro may stand in an invisible group.
fn named_path(ty: &Type) -> Option<&Path> {
    match ty {
        Type::Path(ty) if ty.qself.is_none() => Some(&ty.path),
        Type::Group(group) => named_path(&group.elem),
        Type::Paren(paren) => named_path(&paren.elem),
        _ => None,
    }
}

/// Finds the parts of a type, at any depth, that cannot travel between processes, or would mean different types at the two ends.
pub(crate) struct Travels<'errors> {
    pub(crate) what: &'static str,
    pub(crate) errors: &'errors mut Errors,
}

impl Visit<'_> for Travels<'_> {
    fn visit_type_reference(&mut self, reference: &syn::TypeReference) {
        let instead = match &*reference.elem {
            ty if is_named(ty, "str") => "write `String`",
            ty if is_named(ty, "Path") => "write `PathBuf`",
            Type::Slice(_) => "write a `Vec`",
            _ => "write the type without the `&`",
        };
        self.errors.at(reference, format!("{} travels, so it must be owned: {instead}", self.what));
    }

    fn visit_type_impl_trait(&mut self, ty: &syn::TypeImplTrait) {
        self.errors.at(
            ty,
            format!("{} travels, so it is of one type that both ends know: `impl` names many", self.what),
        );
    }

    fn visit_lifetime(&mut self, lifetime: &syn::Lifetime) {
        if lifetime.ident != "static" {
            self.errors
                .at(lifetime, format!("{} travels, so it must be owned: it borrows from nothing", self.what));
        }
    }

    fn visit_path(&mut self, path: &Path) {
        match path.segments.first() {
            Some(first) if first.ident == "Self" => {
                let message =
                    format!("{} travels, and `Self` would be another type at the requester", self.what);
                self.errors.at(path, message);
            }
            _ => visit::visit_path(self, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn read(attribute: TokenStream, item: TokenStream) -> Actions {
        parse(attribute, item).unwrap_or_else(|refused| panic!("{}", refused.error))
    }

    fn errors(attribute: TokenStream, item: TokenStream) -> Vec<String> {
        let refused = parse(attribute, item).err().expect("it is wrong");
        refused.error.into_iter().map(|error| error.to_string()).collect()
    }

    fn names(actions: &Actions) -> Vec<&str> {
        actions.methods.iter().map(|action| action.name.as_str()).collect()
    }

    #[test]
    fn an_action_is_named_after_the_prefix_and_its_method_or_as_it_says() {
        let item = quote! {
            trait Math {
                async fn add(&self) -> Result<(), ActionError>;
                async fn r#mod(&self) -> Result<(), ActionError>;
                #[action(name = "deep/mul",)]
                async fn multiply(&self) -> Result<(), ActionError>;
            }
        };
        assert_eq!(names(&read(quote! {}, item.clone())), ["add", "mod", "deep/mul"]);
        assert_eq!(names(&read(quote! { prefix = "a/b" }, item)), ["a/b/add", "a/b/mod", "a/b/deep/mul"]);
    }

    #[test]
    fn a_context_is_known_by_the_last_segment_of_its_type() {
        let actions = read(
            quote! {},
            quote! {
                trait Math {
                    async fn who(&self, a: u8, context: some::CallContext, b: u8) -> Result<(), ActionError>;
                }
            },
        );
        let kinds: Vec<_> = actions.methods[0].parameters.iter().map(|parameter| parameter.kind).collect();
        assert!(kinds == [ParameterKind::Argument, ParameterKind::Context, ParameterKind::Argument]);
    }

    #[test]
    fn a_stream_is_no_reply_of_a_blocking_action() {
        let item = quote! {
            trait Log {
                #[action(blocking)]
                fn tail(&self) -> Result<meshwork::Streaming<u8>, ActionError>;
            }
        };
        let errors = errors(quote! {}, item);
        assert!(matches!(&*errors, [error] if error.contains("write `async fn tail`")), "{errors:?}");
    }

    #[test]
    fn a_reply_is_the_first_type_of_the_result() {
        let actions = read(
            quote! {},
            quote! {
                trait Math {
                    async fn add(&self) -> ::core::result::Result<Vec<i64>, meshwork::ActionError>;
                }
            },
        );
        let Action { output, reply, .. } = &actions.methods[0];
        assert_eq!(quote!(#reply).to_string(), quote!(Vec<i64>).to_string());
        assert_eq!(
            quote!(#output).to_string(),
            quote!(::core::result::Result<Vec<i64>, meshwork::ActionError>).to_string()
        );
    }

    #[test]
    fn twelve_arguments_fit_and_a_context_is_none_of_them() {
        let argument = |number: usize| quote::format_ident!("a{number}");
        let item = |count: usize| {
            let arguments = (0..count).map(argument);
            quote! {
                trait Math {
                    async fn sum(&self, #(#arguments: u8,)* context: CallContext) -> Result<u8, ActionError>;
                }
            }
        };
        assert_eq!(read(quote! {}, item(12)).methods[0].parameters.len(), 13);
        assert_eq!(
            errors(quote! {}, item(14)),
            ["an action has at most 12 arguments: make them the fields of a struct"],
        );
    }

    #[test]
    fn two_actions_of_one_name_are_refused_unless_cfg_may_remove_one() {
        let same = quote! {
            trait Math {
                async fn add(&self) -> Result<(), ActionError>;
                #[action(name = "add")]
                async fn plus(&self) -> Result<(), ActionError>;
            }
        };
        assert_eq!(errors(quote! { prefix = "math" }, same), ["`math/add` is already the action of `add`"]);
        let either = quote! {
            trait Math {
                #[cfg(unix)]
                async fn add(&self) -> Result<(), ActionError>;
                #[cfg(not(unix))]
                async fn add(&self) -> Result<(), ActionError>;
            }
        };
        assert_eq!(names(&read(quote! {}, either)), ["add", "add"]);
    }

    #[test]
    fn all_errors_come_at_once() {
        let item = quote! {
            trait Math<T> {
                const ZERO: T;
                fn add(self, a: &T) -> T;
                #[action(name = "a/")]
                async fn sub(&self, _: u8) -> Result<(), Error>;
            }
        };
        assert_eq!(
            errors(quote! { prefix = "/" }, item),
            [
                "the prefix starts or ends with a `/`: write `a/b`, slashes only join",
                "a trait of actions has no generics: a name on the wire stands for one list of types",
                "a trait of actions has no associated constants: a requester could not know them",
                "an action is asynchronous: write `async fn add`, or `#[action(blocking)] fn add` if it blocks its thread or takes long to compute",
                "an action takes `&self`: one value answers all requests",
                "an argument travels, so it must be owned: write the type without the `&`",
                "an action returns `Result<T, ActionError>`, with both types written out",
                "the name starts or ends with a `/`: write `a/b`, slashes only join",
                "an argument has a plain name here: it names the requester's argument, too",
            ],
        );
    }

    #[test]
    fn what_is_no_rust_is_refused_with_the_words_of_the_parser() {
        assert_eq!(
            errors(quote! {}, quote! { trait Math { async fn } }),
            ["unexpected end of input, expected identifier"]
        );
        assert_eq!(errors(quote! { prefix }, quote! { trait Math {} })[0], "expected `=`");
    }

    #[test]
    fn a_refused_trait_is_kept_without_what_only_the_macro_understands() {
        let item = quote! {
            trait Math {
                #[action(name = "")]
                async fn add(&self, (a, b): (u8, u8)) -> Result<u8, ActionError>;
                fn sub(&self, (a, b): (u8, u8)) -> u8 { a - b }
            }
        };
        let kept = parse(quote! {}, item).err().and_then(|refused| refused.kept).expect("it is a trait");
        let expected = quote! {
            trait Math {
                async fn add(&self, _: (u8, u8)) -> Result<u8, ActionError>;
                fn sub(&self, (a, b): (u8, u8)) -> u8 { a - b }
            }
        };
        assert_eq!(quote!(#kept).to_string(), expected.to_string());
    }
}
