//! `#[derive(MeshError)]`: an enum becomes the error of an action, and comes back as the enum from a call. All faults of the enum are found in
//! one go, as those of a trait are in [`parse`](crate::parse).

use crate::expand::{local, located};
use crate::parse::{Errors, Travels, is_named, refuse_generics};
use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::visit::Visit;
use syn::{Attribute, Field, Fields, Generics, Ident, Item, ItemEnum, Lit, LitStr, Variant};

/// The longest code, in bytes: the limit `ERROR_CODE_LEN_MAX` of the wire, which cuts a longer one.
const CODE_LEN_MAX: usize = 1_024;

/// The longest name of an error, in bytes: the limit `ERROR_NAME_LEN_MAX` of the wire, which cuts a longer one.
const NAME_LEN_MAX: usize = 4 * 1_024;

/// An enum of errors without a fault.
struct MeshError {
    ident: Ident,
    /// The name of its errors on the wire.
    name: String,
    variants: Vec<OwnVariant>,
    /// The variant for all other failures of a call, and the member of its field.
    call: (Ident, TokenStream),
}

/// A variant with a code.
struct OwnVariant {
    ident: Ident,
    code: Code,
    fields: Fields,
    /// Whether its fields stay at the provider.
    is_opaque: bool,
}

/// The code of a variant.
#[derive(Clone, PartialEq)]
enum Code {
    Text(String),
    Number(i128),
}

impl ToTokens for Code {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Text(text) => text.to_tokens(tokens),
            Self::Number(number) => Literal::i128_suffixed(*number).to_tokens(tokens),
        }
    }
}

/// Reads the enum and writes out both conversions, or the errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let item = match syn::parse2::<Item>(item) {
        Ok(Item::Enum(item)) => item,
        Ok(
            Item::Struct(syn::ItemStruct { ident, generics, .. })
            | Item::Union(syn::ItemUnion { ident, generics, .. }),
        ) => {
            let message = format!(
                "`MeshError` is for enums, whose variants have a code each: write `enum {ident}`, with `Call(CallError)` as one of its variants"
            );
            errors.at(&ident, message);
            return refused(&ident, &generics, false, errors);
        }
        Ok(other) => return syn::Error::new_spanned(other, "`MeshError` is for enums").into_compile_error(),
        Err(error) => return error.into_compile_error(),
    };
    let (ident, generics, makes_from) = (item.ident.clone(), item.generics.clone(), makes_from_itself(&item));
    match read(item, &mut errors) {
        Some(error) if errors.is_empty() => expand(&error),
        _ => refused(&ident, &generics, makes_from, errors),
    }
}

/// The errors, and conversions that are never called, so that the compiler does not report each `?` too.
fn refused(ident: &Ident, generics: &Generics, makes_from: bool, errors: Errors) -> TokenStream {
    let errors = errors.combined().map(syn::Error::into_compile_error);
    let (parameters, arguments, clause) = generics.split_for_impl();
    let from_call = (!makes_from).then(|| {
        quote! {
            impl #parameters ::core::convert::From<::meshwork::CallError> for #ident #arguments #clause {
                fn from(_: ::meshwork::CallError) -> Self { ::core::unreachable!() }
            }
        }
    });
    quote! {
        #errors
        impl #parameters ::core::convert::From<#ident #arguments> for ::meshwork::ActionError #clause {
            fn from(_: #ident #arguments) -> Self { ::core::unreachable!() }
        }
        #from_call
    }
}

/// Whether another derive is told to make the enum of a `CallError`, by `#[from]`.
fn makes_from_itself(item: &ItemEnum) -> bool {
    item.variants.iter().flat_map(|variant| &variant.fields).any(|field| from_of_call(field).is_some())
}

/// The `#[from]` on a `CallError`.
fn from_of_call(field: &Field) -> Option<&Attribute> {
    field.attrs.iter().find(|attribute| attribute.path().is_ident("from") && is_named(&field.ty, "CallError"))
}

fn read(item: ItemEnum, errors: &mut Errors) -> Option<MeshError> {
    let ItemEnum { attrs, ident, generics, variants, .. } = item;
    refuse_generics(&generics, "an error of actions", errors);
    let name = read_name(&attrs, errors).unwrap_or_else(|| ident.unraw().to_string());
    let (mut own, mut call): (Vec<OwnVariant>, Option<(Ident, TokenStream)>) = (Vec::new(), None);
    for variant in variants {
        let Said { code, is_opaque } = read_attributes(&variant, errors);
        for attribute in variant.fields.iter().filter_map(from_of_call) {
            errors.at(attribute, "`MeshError` makes the enum of a `CallError` itself: leave `#[from]` out");
        }
        if !is_opaque && let Some(member) = call_member(&variant, errors) {
            if let Some((_, at)) = code {
                errors.at(
                    at,
                    "this variant is for errors that have another code, or none: it has none of its own",
                );
            }
            if let Some((first, _)) = &call {
                let message = format!("`{}` is the variant for all other failures already", first.unraw());
                errors.at(&variant.ident, message);
            }
            call.get_or_insert((variant.ident, member));
            continue;
        }
        if !is_opaque {
            for field in &variant.fields {
                Travels { what: "the field of an error", errors }.visit_type(&field.ty);
            }
        }
        let (code, at) = code.unwrap_or_else(|| {
            (Code::Text(variant.ident.unraw().to_string()), variant.ident.to_token_stream())
        });
        if let Some(first) = own.iter().find(|other| other.code == code) {
            errors.at(at, format!("this is already the code of `{}`", first.ident.unraw()));
        }
        own.push(OwnVariant { ident: variant.ident, code, fields: variant.fields, is_opaque });
    }
    if call.is_none() {
        let message = "one variant holds all other ways in which a call fails, such as a lost link: add `Call(CallError)`";
        errors.at(&ident, message);
    }
    Some(MeshError { ident, name, variants: own, call: call? })
}

/// The member of a variant that is a `CallError` and nothing else.
fn call_member(variant: &Variant, errors: &mut Errors) -> Option<TokenStream> {
    let at = variant.fields.iter().position(|field| is_named(&field.ty, "CallError"))?;
    if variant.fields.len() > 1 {
        let message = "a `CallError` stands alone in its variant, which is for all other failures; one that keeps it as a cause is `#[mesh(opaque)]`";
        errors.at(&variant.ident, message);
    }
    let field = variant.fields.iter().nth(at)?;
    Some(
        field
            .ident
            .as_ref()
            .map_or_else(|| syn::Index::from(at).to_token_stream(), ToTokens::to_token_stream),
    )
}

fn is_mesh(attribute: &&Attribute) -> bool {
    attribute.path().is_ident("mesh")
}

/// The name of the errors, by `#[mesh(name = "..")]` on the enum.
fn read_name(attributes: &[Attribute], errors: &mut Errors) -> Option<String> {
    let mut name = None;
    for attribute in attributes.iter().filter(is_mesh) {
        let read = attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown key: on the enum, the only one is `name = \"..\"`"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            let fault = match literal.value().len() {
                _ if name.is_some() => Some("`name` is given twice".to_owned()),
                0 => Some("the name is empty".to_owned()),
                len if len > NAME_LEN_MAX => {
                    Some(format!("the name has {len} bytes, and {NAME_LEN_MAX} is the most"))
                }
                _ => None,
            };
            name = Some(literal.value());
            fault.map_or(Ok(()), |fault| Err(syn::Error::new_spanned(&literal, fault)))
        });
        read.unwrap_or_else(|error| errors.push(error));
    }
    name
}

/// What the attributes of a variant say.
#[derive(Default)]
struct Said {
    /// The code, and its tokens for errors.
    code: Option<(Code, TokenStream)>,
    is_opaque: bool,
}

fn read_attributes(variant: &Variant, errors: &mut Errors) -> Said {
    let mut said = Said::default();
    for attribute in variant.attrs.iter().filter(is_mesh) {
        let read = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("opaque") {
                said.is_opaque = true;
                return Ok(());
            }
            if !meta.path.is_ident("code") {
                return Err(
                    meta.error("unknown key: on a variant, write `code = \"..\"`, `code = 7` or `opaque`")
                );
            }
            let literal: Lit = meta.value()?.parse()?;
            let code = read_code(&literal)?;
            if said.code.is_some() {
                return Err(syn::Error::new_spanned(literal, "`code` is given twice"));
            }
            said.code = Some((code, literal.to_token_stream()));
            Ok(())
        });
        read.unwrap_or_else(|error| errors.push(error));
    }
    for attribute in variant.fields.iter().flat_map(|field| &field.attrs).filter(is_mesh) {
        errors.at(attribute, "`#[mesh(..)]` stands on the variant, not on its fields");
    }
    said
}

fn read_code(literal: &Lit) -> syn::Result<Code> {
    let refuse = |message: String| Err(syn::Error::new_spanned(literal, message));
    match literal {
        Lit::Str(text) => match text.value().len() {
            0 => refuse("the code is empty".to_owned()),
            len if len > CODE_LEN_MAX => {
                refuse(format!("the code has {len} bytes, and {CODE_LEN_MAX} is the most"))
            }
            _ => Ok(Code::Text(text.value())),
        },
        Lit::Int(number) => match number.base10_parse::<i128>() {
            Ok(number) if i64::try_from(number).is_ok() || u64::try_from(number).is_ok() => {
                Ok(Code::Number(number))
            }
            _ => refuse("a code that is a number has 64 bits at most".to_owned()),
        },
        _ => refuse("a code is a text or an integer".to_owned()),
    }
}

fn expand(error: &MeshError) -> TokenStream {
    let MeshError { ident, name, variants, call: (call, member) } = error;
    let (value, message) = (local("error"), local("message"));
    let private = quote! { ::meshwork::__private };
    let records = variants.iter().filter_map(|variant| record(ident, variant));
    let sent = variants.iter().map(|variant| sent(error, variant));
    let read = variants.iter().filter(|variant| !variant.is_opaque).map(|variant| read_back(error, variant));
    quote_spanned! {located(ident).span()=>
        const _: () = {
            #(#records)*

            #[automatically_derived]
            impl ::core::convert::From<#ident> for ::meshwork::ActionError {
                fn from(#value: #ident) -> Self {
                    let #message = #private::message_of(&#value);
                    match #value {
                        #(#sent)*
                        #ident::#call { #member: #value } => ::core::convert::From::from(#value),
                    }
                }
            }

            #[automatically_derived]
            impl ::core::convert::From<::meshwork::CallError> for #ident {
                fn from(#value: ::meshwork::CallError) -> Self {
                    let #value = #private::OwnError::new(#value, #name);
                    #(#read)*
                    Self::#call { #member: #value.into_call_error() }
                }
            }
        };
    }
}

/// The fields of a variant as a value of their own, which serde writes and reads as it would the variant: none for a variant without fields.
fn record(error: &Ident, variant: &OwnVariant) -> Option<TokenStream> {
    if variant.is_opaque || variant.fields.is_empty() {
        return None;
    }
    let record = record_of(error, variant);
    let shown = variant.ident.unraw().to_string();
    let fields = variant.fields.iter().map(|Field { attrs, ident, ty, .. }| {
        let serde = attrs.iter().filter(|attribute| attribute.path().is_ident("serde"));
        let named = ident.as_ref().map(|ident| quote! { #ident: });
        quote! { #(#serde)* #named #ty }
    });
    let body = match &variant.fields {
        Fields::Named(_) => quote! { { #(#fields),* } },
        _ => quote! { ( #(#fields),* ); },
    };
    let crate_path = "::meshwork::__private::serde";
    Some(quote_spanned! {located(&variant.ident).span()=>
        #[allow(non_camel_case_types, reason = "the name is made of those of an enum and its variant")]
        #[derive(::meshwork::__private::serde::Serialize, ::meshwork::__private::serde::Deserialize)]
        #[serde(crate = #crate_path, rename = #shown)]
        struct #record #body
    })
}

fn record_of(error: &Ident, variant: &OwnVariant) -> Ident {
    format_ident!(
        "__{}_{}",
        error.unraw(),
        variant.ident.unraw(),
        span = Span::mixed_site().located_at(variant.ident.span())
    )
}

/// The members of a variant, and a variable for each.
fn members(fields: &Fields) -> (Vec<syn::Member>, Vec<Ident>) {
    let members: Vec<_> = fields.members().collect();
    let variables = (0..members.len()).map(|at| local(&format!("field_{at}"))).collect();
    (members, variables)
}

/// The arm that makes an `ActionError` of a variant.
fn sent(error: &MeshError, variant: &OwnVariant) -> TokenStream {
    let (MeshError { ident, name, .. }, OwnVariant { ident: own, code, fields, is_opaque }) =
        (error, variant);
    let message = local("message");
    let (pattern, value) = if *is_opaque || fields.is_empty() {
        (quote! { { .. } }, None)
    } else {
        let (record, (members, variables)) = (record_of(ident, variant), members(fields));
        let value = quote! { .with_data(&#record { #(#members: #variables),* }) };
        (quote! { { #(#members: #variables),* } }, Some(value))
    };
    quote! {
        #ident::#own #pattern => ::meshwork::ActionError::new(#name, #message).with_code(#code) #value,
    }
}

/// The statement that gives a variant back, if the error is of this variant.
fn read_back(error: &MeshError, variant: &OwnVariant) -> TokenStream {
    let OwnVariant { ident: own, code, fields, .. } = variant;
    let value = local("error");
    if fields.is_empty() {
        return quote! { if #value.is_of(#code) { return Self::#own {}; } };
    }
    let (record, (members, variables)) = (record_of(&error.ident, variant), members(fields));
    quote! {
        if let ::core::option::Option::Some(#record { #(#members: #variables),* }) = #value.fields_of(#code) {
            return Self::#own { #(#members: #variables),* };
        }
    }
}
