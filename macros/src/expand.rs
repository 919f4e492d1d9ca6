//! From the model to code: the trait with its responders, and the requester. [`parse`](crate::parse) has refused all faults, so
//! nothing here fails.
//!
//! Generated code resolves its variables apart from the user's (`mixed_site`), so an argument may be called `this`. It is located
//! at the method that it is made from, so that a type that cannot travel is reported there, and lints of the user's crate know
//! that the code is generated.

use crate::parse::{Action, Actions, Parameter, ParameterKind, Refused, streamed};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Attribute, Ident, Meta, Type, Visibility, parse_quote};

/// Writes out both ends.
pub(crate) fn expand(actions: &Actions) -> TokenStream {
    let records = actions.methods.iter().map(|action| record(&actions.ident, action));
    let records = quote! { #(#records)* };
    let contract = contract(actions);
    let requester = requester(actions);
    quote! { #records #contract #requester }
}

/// The record of the arguments of a method, which both ends write and read.
fn record(contract: &Ident, action: &Action) -> TokenStream {
    let Action { attributes, ident, name, parameters, reply, .. } = action;
    let cfgs = copied(attributes, &["cfg"]);
    let record = record_of(contract, ident);
    let method = located(ident);
    let private = quote! { ::meshwork::__private };
    let fields: Vec<_> = arguments(parameters).map(|parameter| &parameter.ident).collect();
    let types: Vec<&Type> = arguments(parameters).map(|parameter| &parameter.ty).collect();
    let defaults = arguments(parameters).map(|Parameter { ty, default, .. }| match default {
        Some(default) => quote! { #default },
        None if is_option(ty) => quote! { #[serde(default)] },
        None => quote! {},
    });
    let names: Vec<_> = fields.iter().map(|field| field.unraw().to_string()).collect();
    let count = fields.len();
    let crate_path = "::meshwork::__private::serde";
    let (value, serializer, payload, absent, writer, method_of) = (
        local("value"),
        local("serializer"),
        local("payload"),
        local("absent"),
        local("writer"),
        local("METHOD"),
    );
    // A field that is left out is read as its default, which is the `None` that was sent only where the default is not the user's.
    let is_absent = arguments(parameters).map(|Parameter { ident, ty, default, .. }| match default {
        Some(default) if !is_option(ty) || !is_plain_default(default) => quote! { false },
        _ => quote_spanned! {method.span()=> #private::is_absent(&self.#ident) },
    });
    let absents: Vec<_> = (0..count).map(|at| quote! { #absent[#at] }).collect();
    let bare = match (&fields[..], &types[..]) {
        ([field], [ty]) => quote! {
            ::core::option::Option::Some(#payload.decode::<#ty>().map(|#value| Self { #field: #value }))
        },
        ([], _) => quote! {
            ::core::option::Option::Some(#payload.decode::<()>().map(|()| Self {}))
        },
        _ => quote! { ::core::option::Option::None },
    };
    let unused = fields.is_empty().then(|| quote! { let _ = #absent; });
    let payload_unused = (count > 1).then(|| quote! { let _ = #payload; });
    let shown = record.to_string();
    let (reply, made) = match streamed(reply) {
        Some(item) => (item, quote! { streaming }),
        None => (reply, quote! { new }),
    };
    quote_spanned! {method.span()=>
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "the name is made of those of a trait and its method")]
        #[derive(#private::serde::Deserialize)]
        #[serde(crate = #crate_path, deny_unknown_fields, rename = #name)]
        struct #record {
            #(#defaults #fields: #types,)*
        }

        #(#cfgs)*
        impl #private::serde::Serialize for #record {
            #[inline]
            fn serialize<__S: #private::serde::Serializer>(
                &self,
                #serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                // Where names are written, an argument that is absent is left out, so that it may be unknown at the other end.
                let #absent: [bool; #count] = if #serializer.is_human_readable() {
                    [#(#is_absent),*]
                } else {
                    [false; #count]
                };
                let #writer = #absent.iter().filter(|#absent| !**#absent).count();
                #unused
                #[allow(unused_mut, reason = "a method may have no arguments")]
                let mut #writer =
                    #private::serde::Serializer::serialize_struct(#serializer, #shown, #writer)?;
                #(
                    if #absents {
                        #private::serde::ser::SerializeStruct::skip_field(&mut #writer, #names)?;
                    } else {
                        #private::serde::ser::SerializeStruct::serialize_field(&mut #writer, #names, &self.#fields)?;
                    }
                )*
                #private::serde::ser::SerializeStruct::end(#writer)
            }
        }

        #(#cfgs)*
        impl #private::Record for #record {
            type Reply = #reply;

            #[inline]
            fn method() -> &'static #private::Method {
                static #method_of: #private::Method = #private::Method::#made::<#record>(#name);
                &#method_of
            }

            fn serialize_list<__S: #private::serde::Serializer>(
                &self,
                #serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                #private::serde::Serialize::serialize(&(#(&self.#fields,)*), #serializer)
            }

            fn read_bare(
                #payload: #private::PayloadRef<'_>,
            ) -> ::core::option::Option<::core::result::Result<Self, #private::DecodeError>> {
                #payload_unused
                #bare
            }
        }
    }
}

/// The name of the record of a method.
fn record_of(contract: &Ident, method: &Ident) -> Ident {
    let name = format!("__{}_{}", contract.unraw(), method.unraw());
    Ident::new(&name, Span::mixed_site().located_at(method.span()))
}

/// Whether the attribute is `#[serde(default)]`, and names no function.
fn is_plain_default(attribute: &Attribute) -> bool {
    attribute.parse_args::<syn::Path>().is_ok()
}

/// Whether a type is an `Option`, as far as its path says.
fn is_option(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Option")
}

/// Writes out the errors, and the rest of the trait, which must not cause more errors.
pub(crate) fn expand_refused(refused: Refused) -> TokenStream {
    let Refused { error, kept } = refused;
    let errors = error.into_compile_error();
    let kept = kept.map(|mut kept| {
        kept.colon_token.get_or_insert_default();
        kept.supertraits.push(parse_quote!(::core::marker::Sized));
        quote! {
            #[allow(async_fn_in_trait, dead_code, reason = "it does not compile anyway")]
            #kept
        }
    });
    quote! { #errors #kept }
}

/// The trait that responders implement.
fn contract(actions: &Actions) -> TokenStream {
    let Actions { attributes, visibility, ident, supertraits, methods } = actions;
    let methods_declared = methods.iter().map(declaration);
    let methods_offered = methods.iter().map(|action| offer(ident, action));
    let this = local("this");
    let responders = local("responders");
    let mut all_attributes = attributes.iter().chain(methods.iter().flat_map(|action| &action.attributes));
    let deprecated = all_attributes.any(|attribute| attribute.path().is_ident("deprecated"));
    let allowed = deprecated.then(|| {
        quote! { #[allow(deprecated, reason = "what is deprecated is offered until it is gone")] }
    });
    let into_responders = quote_spanned! {Span::mixed_site()=>
        #allowed
        /// Turns the value into the responders of all its actions, to be offered by a node.
        fn into_responders(self) -> ::meshwork::Responders
        where
            Self: ::core::marker::Sized,
        {
            let #this = ::std::sync::Arc::new(self);
            let #responders = ::meshwork::Responders::new();
            #(#methods_offered)*
            #responders
        }
    };
    quote! {
        #(#attributes)*
        #visibility trait #ident: #(#supertraits +)* ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#methods_declared)*
            #into_responders
        }
    }
}

/// The method of the trait, written as a function that returns a future: `async fn` in a public trait is a warning.
fn declaration(action: &Action) -> TokenStream {
    let Action { attributes, fn_token, ident, parameters, output, is_blocking, body, .. } = action;
    let parameters = parameters.iter().map(|Parameter { ident, ty, .. }| quote! { #ident: #ty });
    if *is_blocking {
        let body = body.as_ref().map_or_else(|| quote! { ; }, ToTokens::to_token_stream);
        return quote! {
            #(#attributes)*
            #fn_token #ident(&self, #(#parameters),*) -> #output #body
        };
    }
    let future = quote! { impl ::core::future::Future<Output = #output> };
    let body = match body {
        Some(body) => {
            let body = quote_spanned! {Span::mixed_site()=> async move #body };
            quote! { { #body } }
        }
        None => quote! { ; },
    };
    quote! {
        #(#attributes)*
        #fn_token #ident(&self, #(#parameters),*) -> #future #body
    }
}

/// The statement of `into_responders` that adds one action.
fn offer(contract: &Ident, action: &Action) -> TokenStream {
    let Action { attributes, ident, name, parameters, reply, own_error, is_blocking, .. } = action;
    let cfgs = copied(attributes, &["cfg"]);
    let types = argument_types(parameters);
    let record = record_of(contract, ident);
    let fields: Vec<_> = arguments(parameters).map(|parameter| &parameter.ident).collect();
    let shown: Vec<_> = fields.iter().map(|field| field.unraw().to_string()).collect();
    let this = local("this");
    let responders = local("responders");
    let context = local("context");
    let takes_context = parameters.iter().any(|parameter| parameter.kind == ParameterKind::Context);
    // A blocking method runs on another thread, with the context that was taken along there.
    let (context_type, take) = if *is_blocking {
        (quote! { ::meshwork::CallContext }, quote! { ::core::clone::Clone::clone })
    } else {
        (quote! { ::meshwork::__private::ContextRef<'_> }, quote! { ::meshwork::__private::taken })
    };
    let context_taken = takes_context.then(|| quote! { let #context = #take(#context); });
    let passed = parameters.iter().map(|parameter| match parameter.kind {
        ParameterKind::Argument => &parameter.ident,
        ParameterKind::Context => &context,
    });
    let method = located(ident);
    let as_action_error = own_error.as_ref().map(|_| {
        quote! { .map_err(::core::convert::Into::<::meshwork::ActionError>::into) }
    });
    let (reply, respond) = match streamed(reply) {
        Some(item) => (item, quote! { respond_stream_typed }),
        None => (reply, quote! { respond_typed }),
    };
    // The whole path, since a user's type may have another method of this name, and `Arc` has `clone`.
    let called = quote_spanned! {method.span()=> <Self as #contract>::#method(&#this, #(#passed),*) };
    let (respond, answer) = if *is_blocking {
        (quote! { respond_typed_blocking }, quote! { #context_taken #called #as_action_error })
    } else {
        let answer = quote_spanned! {method.span()=>
            let #this = ::std::sync::Arc::clone(&#this);
            #context_taken
            async move { #called.await #as_action_error }
        };
        (respond, answer)
    };
    quote_spanned! {method.span()=>
        #(#cfgs)*
        let #responders = {
            let #this = ::std::sync::Arc::clone(&#this);
            ::meshwork::__private::#respond(
                #responders,
                move |#record { #(#fields),* }: #record, #context: &#context_type| {
                    #answer
                },
            )
            .shape(#name, ::meshwork::__private::shape!([#(#shown),*], #types, #reply))
        };
    }
}

/// The struct that callers use.
fn requester(actions: &Actions) -> TokenStream {
    let Actions { attributes, visibility, ident, methods, .. } = actions;
    let cfgs = copied(attributes, &["cfg"]);
    let contract = ident.unraw();
    let requester = Ident::new(&format!("{contract}Requester"), located(ident).span());
    let about = format!("Calls the actions of [`{contract}`], whichever node offers them.");
    let about_new = "A requester that calls through this node: a branch or a master, or a reference to one.";
    let about_actions = format!("The names of the actions of [`{contract}`], in the order of its methods.");
    let names = methods.iter().map(|Action { attributes, name, .. }| {
        let cfgs = copied(attributes, &["cfg"]);
        quote! { #(#cfgs)* #name }
    });
    let calls = methods.iter().map(|action| call(visibility, &actions.ident, action));
    let node = local("node");
    let formatter = local("formatter");
    let shown = requester.to_string();
    quote_spanned! {Span::mixed_site()=>
        #[doc = #about]
        #(#cfgs)*
        #[derive(::core::clone::Clone)]
        #visibility struct #requester {
            node: ::meshwork::Node,
        }

        #(#cfgs)*
        impl #requester {
            #[doc = #about_actions]
            #visibility const ACTIONS: &'static [&'static str] = &[#(#names),*];

            #[doc = #about_new]
            #visibility fn new(#node: impl ::core::convert::Into<::meshwork::Node>) -> Self {
                Self { node: ::core::convert::Into::into(#node) }
            }

            #(#calls)*
        }

        #(#cfgs)*
        impl ::core::fmt::Debug for #requester {
            fn fmt(&self, #formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #formatter.debug_struct(#shown).finish_non_exhaustive()
            }
        }
    }
}

/// The method of the requester, as visible as the requester itself: a public method of a private type would be a lint.
fn call(visibility: &Visibility, contract: &Ident, action: &Action) -> TokenStream {
    let Action { attributes, ident, name, parameters, reply, own_error, .. } = action;
    let record = record_of(contract, ident);
    let kept = copied(attributes, &["doc", "cfg", "allow", "deprecated"]);
    let about = (!attributes.iter().any(is_sentence)).then(|| {
        let about = format!("Calls the action `{name}`.");
        quote! { #[doc = #about] }
    });
    let taken = arguments(parameters).map(|Parameter { ident, ty, .. }| quote! { #ident: #ty });
    let names = arguments(parameters).map(|parameter| &parameter.ident);
    let method = located(ident);
    let failing_as = own_error.as_ref().map(|_| quote! { .failing_as() });
    let own_error = own_error.as_ref().map(|own_error| quote! { , #own_error });
    let (reply, future, made) = match streamed(reply) {
        Some(item) => (item, quote! { Opening }, quote! { stream_typed }),
        None => (reply, quote! { Calling }, quote! { call_typed }),
    };
    quote_spanned! {method.span()=>
        #about
        #(#kept)*
        #[inline]
        #visibility fn #method(&self, #(#taken),*) -> ::meshwork::#future<#reply #own_error> {
            ::meshwork::__private::#made(&self.node, &#record { #(#names),* }) #failing_as
        }
    }
}

fn arguments(parameters: &[Parameter]) -> impl Iterator<Item = &Parameter> {
    parameters.iter().filter(|parameter| parameter.kind == ParameterKind::Argument)
}

/// The type of the arguments on the wire: a tuple.
fn argument_types(parameters: &[Parameter]) -> TokenStream {
    let types = arguments(parameters).map(|parameter| -> &Type { &parameter.ty });
    quote! { (#(#types,)*) }
}

fn copied<'a>(attributes: &'a [Attribute], names: &[&str]) -> Vec<&'a Attribute> {
    attributes.iter().filter(|attribute| names.iter().any(|name| attribute.path().is_ident(name))).collect()
}

/// Whether the attribute is a line of documentation, and not a setting such as `doc(hidden)`.
fn is_sentence(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc") && matches!(attribute.meta, Meta::NameValue(_))
}

/// A variable of the expansion, which cannot collide with a variable of the user.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The name as part of generated code, located where the user wrote it.
pub(crate) fn located(ident: &Ident) -> Ident {
    let mut located = ident.clone();
    located.set_span(Span::mixed_site().located_at(ident.span()));
    located
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    /// Without spaces: their places depend on how the tokens came together.
    fn text(tokens: &TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    fn expanded(attribute: TokenStream, item: TokenStream) -> String {
        match parse(attribute, item) {
            Ok(actions) => text(&expand(&actions)),
            Err(refused) => panic!("{}", refused.error),
        }
    }

    #[test]
    fn a_trait_becomes_both_ends() {
        let item = quote! {
            /// Arithmetic.
            pub(crate) trait Math: Clone {
                /// Adds.
                async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
                #[action(name = "whoami")]
                #[cfg(unix)]
                async fn who(&self, context: CallContext, greeting: String) -> Result<String, ActionError> {
                    Ok(greeting)
                }
            }
        };
        let expected = quote! {
            /// Arithmetic.
            pub(crate) trait Math: Clone + ::core::marker::Send + ::core::marker::Sync + 'static {
                /// Adds.
                fn add(&self, a: i64, b: i64) -> impl ::core::future::Future<Output = Result<i64, ActionError>>;

                #[cfg(unix)]
                fn who(
                    &self,
                    context: CallContext,
                    greeting: String
                ) -> impl ::core::future::Future<Output = Result<String, ActionError>> {
                    async move { Ok(greeting) }
                }

                /// Turns the value into the responders of all its actions, to be offered by a node.
                fn into_responders(self) -> ::meshwork::Responders
                where
                    Self: ::core::marker::Sized,
                {
                    let this = ::std::sync::Arc::new(self);
                    let responders = ::meshwork::Responders::new();
                    let responders = {
                        let this = ::std::sync::Arc::clone(&this);
                        ::meshwork::__private::respond_typed(
                            responders,
                            move |__Math_add { a, b }: __Math_add, context: &::meshwork::__private::ContextRef<'_>| {
                                let this = ::std::sync::Arc::clone(&this);
                                async move { <Self as Math>::add(&this, a, b).await }
                            },
                        )
                        .shape("math/add", ::meshwork::__private::shape!(["a", "b"], (i64, i64,), i64))
                    };
                    #[cfg(unix)]
                    let responders = {
                        let this = ::std::sync::Arc::clone(&this);
                        ::meshwork::__private::respond_typed(
                            responders,
                            move |__Math_who { greeting }: __Math_who, context: &::meshwork::__private::ContextRef<'_>| {
                                let this = ::std::sync::Arc::clone(&this);
                                let context = ::meshwork::__private::taken(context);
                                async move { <Self as Math>::who(&this, context, greeting).await }
                            },
                        )
                        .shape("math/whoami", ::meshwork::__private::shape!(["greeting"], (String,), String))
                    };
                    responders
                }
            }

            #[doc = "Calls the actions of [`Math`], whichever node offers them."]
            #[derive(::core::clone::Clone)]
            pub(crate) struct MathRequester {
                node: ::meshwork::Node,
            }

            impl MathRequester {
                #[doc = "The names of the actions of [`Math`], in the order of its methods."]
                pub(crate) const ACTIONS: &'static [&'static str] = &["math/add", #[cfg(unix)] "math/whoami"];

                #[doc = "A requester that calls through this node: a branch or a master, or a reference to one."]
                pub(crate) fn new(node: impl ::core::convert::Into<::meshwork::Node>) -> Self {
                    Self { node: ::core::convert::Into::into(node) }
                }

                /// Adds.
                #[inline]
                pub(crate) fn add(&self, a: i64, b: i64) -> ::meshwork::Calling<i64> {
                    ::meshwork::__private::call_typed(&self.node, &__Math_add { a, b })
                }

                #[doc = "Calls the action `math/whoami`."]
                #[cfg(unix)]
                #[inline]
                pub(crate) fn who(&self, greeting: String) -> ::meshwork::Calling<String> {
                    ::meshwork::__private::call_typed(&self.node, &__Math_who { greeting })
                }
            }

            impl ::core::fmt::Debug for MathRequester {
                fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    formatter.debug_struct("MathRequester").finish_non_exhaustive()
                }
            }
        };
        let expanded = expanded(quote! { prefix = "math" }, item);
        let (records, both_ends) = expanded.split_at(expanded.len() - text(&expected).len());
        assert_eq!(both_ends, text(&expected));
        for record in [
            quote! { #[serde(crate = "::meshwork::__private::serde", deny_unknown_fields, rename = "math/add")] },
            quote! { struct __Math_add { a: i64, b: i64, } },
            quote! { struct __Math_who { greeting: String, } },
            quote! { ::meshwork::__private::Method::new::<__Math_add>("math/add") },
        ] {
            assert!(records.contains(&text(&record)), "{record}: {records}");
        }
    }

    #[test]
    fn an_argument_that_may_be_absent_has_a_default() {
        let item = quote! {
            trait Math {
                async fn round(
                    &self,
                    number: f64,
                    digits: Option<u8>,
                    #[serde(default = "up")] up: bool
                ) -> Result<f64, ActionError>;
            }
        };
        let record = quote! {
            struct __Math_round {
                number: f64,
                #[serde(default)] digits: Option<u8>,
                #[serde(default = "up")] up: bool,
            }
        };
        let expanded = expanded(quote! {}, item);
        assert!(expanded.contains(&text(&record)), "{expanded}");
    }

    #[test]
    fn a_method_without_arguments_sends_an_empty_record() {
        let item = quote! {
            trait Math {
                async fn version(&self) -> Result<String, ActionError>;
            }
        };
        let expanded = expanded(quote! {}, item);
        let called = quote!(::meshwork::__private::call_typed(&self.node, &__Math_version {}));
        assert!(expanded.contains(&text(&called)), "{expanded}");
    }

    #[test]
    fn a_method_that_answers_with_a_stream_is_one_at_both_ends() {
        let item = quote! {
            trait Log {
                async fn tail(&self, path: String) -> Result<meshwork::Streaming<Line>, ActionError>;
            }
        };
        let expanded = expanded(quote! {}, item);
        for part in [
            quote! { ::meshwork::Opening<Line> },
            quote! { ::meshwork::__private::stream_typed(&self.node, &__Log_tail { path }) },
            quote! { ::meshwork::__private::respond_stream_typed },
            quote! { Method::streaming::<__Log_tail> },
            quote! { type Reply = Line; },
        ] {
            assert!(expanded.contains(&text(&part)), "{part}: {expanded}");
        }
    }

    #[test]
    fn an_error_of_the_user_is_an_action_error_on_the_way_and_comes_back() {
        let item = quote! {
            trait Stock {
                async fn take(&self, count: u32) -> Result<u32, stock::TakeError>;
            }
        };
        let expanded = expanded(quote! {}, item);
        assert!(expanded.contains("::meshwork::Calling<u32,stock::TakeError>"), "{expanded}");
        assert!(expanded.contains(".failing_as()"), "{expanded}");
        assert!(expanded.contains("Into::<::meshwork::ActionError>::into"), "{expanded}");
    }

    #[test]
    fn what_is_deprecated_is_still_offered_without_a_warning() {
        let item = quote! {
            trait Math {
                #[deprecated = "use `add`"]
                async fn plus(&self) -> Result<(), ActionError>;
            }
        };
        let expanded = expanded(quote! {}, item);
        assert!(expanded.contains("allow(deprecated"), "{expanded}");
        // At both ends, so that callers are told.
        assert_eq!(expanded.matches("use`add`").count(), 2, "{expanded}");
    }

    #[test]
    fn a_refused_trait_is_written_out_beside_its_errors() {
        let refused = parse(quote! {}, quote! { trait Math {} }).err().expect("it has no methods");
        let expanded = text(&expand_refused(refused));
        assert!(expanded.contains("compile_error"), "{expanded}");
        assert!(expanded.contains("traitMath:::core::marker::Sized{}"), "{expanded}");
    }
}
