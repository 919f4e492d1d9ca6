//! Two versions of a program: the types of caller and provider differ. What is compatible arrives; what is not is an error that names it.
//! `docs/compatibility.md` has the table whose rows these tests are.

#![expect(clippy::allow_attributes, reason = "some versions use all that they know, and some do not")]

use super::{Mesh, soon};
use meshwork::prelude::*;
use serde::{Deserialize, Serialize};

/// The two ends of one method, each with types of its own: what the caller of version `one` gets from a provider of version `two`.
macro_rules! versions {
    ($($test:ident:
        one { $($one:ident $one_name:ident { $($one_body:tt)* })* } ($($one_arg:ident: $one_type:ty),*) -> $one_reply:ty;
        two { $($two:ident $two_name:ident { $($two_body:tt)* })* } ($($(#[$two_attribute:meta])* $two_arg:ident: $two_type:ty),*) -> $two_reply:ty = $two_value:expr;
        [$($sent:expr),*] => $expected:expr;)*
    ) => {$(
        #[actix::test]
        async fn $test() {
            #[allow(dead_code, reason = "one version knows more than it uses")]
            mod one {
                use super::*;
                $(#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)] pub(crate) $one $one_name { $($one_body)* })*
                #[meshwork::actions(prefix = "shop")]
                pub(crate) trait Shop {
                    async fn order(&self, $($one_arg: $one_type),*) -> Result<$one_reply, ActionError>;
                }
            }
            #[allow(dead_code, reason = "one version knows more than it uses")]
            mod two {
                use super::*;
                $(#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)] pub(crate) $two $two_name { $($two_body)* })*
                #[meshwork::actions(prefix = "shop")]
                pub(crate) trait Shop {
                    async fn order(&self, $($(#[$two_attribute])* $two_arg: $two_type),*) -> Result<$two_reply, ActionError>;
                }
                pub(crate) struct Here;
                impl Shop for Here {
                    async fn order(&self, $($two_arg: $two_type),*) -> Result<$two_reply, ActionError> {
                        Ok($two_value)
                    }
                }
            }
            #[allow(unused_imports, reason = "some versions have no types of their own")]
            use one::*;
            use two::Shop as _;
            let mesh = Mesh::start().await;
            let _provider = mesh.bind(BranchActor::new("two").respond_all(two::Here.into_responders())).await;
            let caller = mesh.branch("one").await;
            let requester = one::ShopRequester::new(&caller);
            for _ in 0..3 {
                let got = soon(requester.order($($sent),*)).await;
                let expected: Result<$one_reply, &str> = $expected;
                match (got, expected) {
                    (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                    (Err(error), Err(words)) => {
                        assert_eq!(error.code(), Code::CANNOT_DECODE, "{error}");
                        assert!(error.message().contains(words), "{error}");
                    }
                    (got, expected) => panic!("{got:?} and not {expected:?}"),
                }
            }
        }
    )*};
}

versions! {
    a_variant_in_the_middle_is_no_other_variant:
        one { enum Status { Open, Cancelled } } () -> Status;
        two { enum Status { Open, Paid, Cancelled } } () -> Status = Status::Cancelled;
        [] => Ok(Status::Cancelled);
    a_variant_that_the_caller_does_not_know_is_named:
        one { enum Status { Open, Cancelled } } () -> Status;
        two { enum Status { Open, Paid, Cancelled } } () -> Status = Status::Paid;
        [] => Err("unknown variant `Paid`");
    fields_in_another_order_keep_their_values:
        one { struct Bill { pub(crate) amount: i64, pub(crate) tip: i64 } } (bill: Bill) -> Bill;
        two { struct Bill { pub(crate) tip: i64, pub(crate) amount: i64 } } (bill: Bill) -> Bill = Bill { tip: bill.tip, amount: bill.amount };
        [Bill { amount: 100, tip: 7 }] => Ok(Bill { amount: 100, tip: 7 });
    arguments_in_another_order_keep_their_values:
        one {} (amount: i64, tip: i64) -> (i64, i64);
        two {} (tip: i64, amount: i64) -> (i64, i64) = (amount, tip);
        [100, 7] => Ok((100, 7));
    a_wider_integer_takes_what_fits:
        one {} (count: u8) -> u8;
        two {} (count: i64) -> i64 = count + 55;
        [200] => Ok(255);
    an_integer_that_does_not_fit_is_an_error:
        one {} (count: u8) -> u8;
        two {} (count: i64) -> i64 = count + 56;
        [200] => Err("256");
    a_sign_is_kept:
        one {} (count: i32) -> i32;
        two {} (count: u32) -> u32 = count;
        [-5] => Err("-5");
    a_field_more_at_the_provider_needs_a_default:
        one { struct Item { pub(crate) name: String } } (item: Item) -> u8;
        two { struct Item { pub(crate) name: String, pub(crate) count: u8 } } (item: Item) -> u8 = item.count;
        [Item { name: "a".to_owned() }] => Err("missing field `count`");
    an_option_more_is_fine_in_the_arguments:
        one { struct Item { pub(crate) name: String } } (item: Item) -> bool;
        two { struct Item { pub(crate) name: String, pub(crate) count: Option<u8> } } (item: Item) -> bool = item.count.is_none();
        [Item { name: "a".to_owned() }] => Ok(true);
    an_option_more_is_fine_in_the_reply:
        one { struct Item { pub(crate) name: String } } () -> Item;
        two { struct Item { pub(crate) name: String, pub(crate) count: Option<u8> } } () -> Item = Item { name: "a".to_owned(), count: Some(1) };
        [] => Ok(Item { name: "a".to_owned() });
    a_field_less_at_the_provider_is_fine:
        one { struct Item { pub(crate) name: String, pub(crate) count: u8 } } (item: Item) -> String;
        two { struct Item { pub(crate) name: String } } (item: Item) -> String = item.name;
        [Item { name: "a".to_owned(), count: 1 }] => Ok("a".to_owned());
    an_optional_argument_more_at_the_provider_is_fine:
        one {} (name: String) -> String;
        two {} (dry_run: Option<bool>, name: String) -> String = format!("{name} {dry_run:?}");
        ["a".to_owned()] => Ok("a None".to_owned());
    an_argument_with_a_default_more_at_the_provider_is_fine:
        one {} (name: String) -> u8;
        two {} (name: String, #[serde(default)] count: u8) -> u8 = count + name.len() as u8;
        ["a".to_owned()] => Ok(1);
    an_argument_more_at_the_provider_is_named:
        one {} (name: String) -> u8;
        two {} (name: String, count: u8) -> u8 = count + name.len() as u8;
        ["a".to_owned()] => Err("missing field `count`");
    an_optional_argument_that_is_not_used_may_be_unknown:
        one {} (name: String, dry_run: Option<bool>) -> String;
        two {} (name: String) -> String = name;
        ["a".to_owned(), None] => Ok("a".to_owned());
    an_argument_that_is_used_must_be_known:
        one {} (name: String, dry_run: Option<bool>) -> String;
        two {} (name: String) -> String = name;
        ["a".to_owned(), Some(true)] => Err("unknown field `dry_run`");
    an_argument_with_another_name_is_named:
        one {} (name: String, count: u8) -> String;
        two {} (name: String, number: u8) -> String = format!("{name}{number}");
        ["a".to_owned(), 1] => Err("`count`");
    a_renamed_type_is_no_change:
        one { struct Item { pub(crate) name: String } } (item: Item) -> Item;
        two { struct Thing { pub(crate) name: String } } (item: Thing) -> Thing = item;
        [Item { name: "a".to_owned() }] => Ok(Item { name: "a".to_owned() });
    an_option_may_become_what_it_holds_and_back:
        one {} (count: Option<u8>) -> u8;
        two {} (count: u8) -> Option<u8> = Some(count);
        [Some(3)] => Ok(3);
}

mod before {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Order {
        pub(crate) amount: u32,
        pub(crate) tip: u32,
    }
    #[meshwork::actions(prefix = "shop")]
    pub(crate) trait Shop {
        async fn order(&self, order: Order, tell: Callback<u8, u8>) -> Result<String, ActionError>;
    }
    pub(crate) struct Here;
    impl Shop for Here {
        async fn order(&self, order: Order, tell: Callback<u8, u8>) -> Result<String, ActionError> {
            Ok(format!("{} and {} and {}", order.amount, order.tip, tell.call(1).await?))
        }
    }
}

mod after {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Order {
        pub(crate) tip: u64,
        pub(crate) note: Option<String>,
        pub(crate) amount: u32,
    }
    #[meshwork::actions(prefix = "shop")]
    pub(crate) trait Shop {
        async fn order(
            &self,
            tell: Callback<u8, u8>,
            order: Order,
            dry_run: Option<bool>,
        ) -> Result<String, ActionError>;
    }
    pub(crate) struct Here;
    impl Shop for Here {
        async fn order(
            &self,
            tell: Callback<u8, u8>,
            order: Order,
            dry_run: Option<bool>,
        ) -> Result<String, ActionError> {
            assert_eq!((&order.note, dry_run), (&None, None));
            Ok(format!("{} and {} and {}", order.amount, order.tip, tell.call(1).await?))
        }
    }
}

/// The caller writes bincode for the provider that it knows, and the news of the next one come behind.
#[actix::test]
async fn a_provider_that_another_version_replaces_is_called_at_once() {
    use {after::Shop as _, before::Shop as _};
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    let shop = before::ShopRequester::new(&caller);
    for round in 0..20 {
        let responders =
            if round % 2 == 0 { before::Here.into_responders() } else { after::Here.into_responders() };
        let provider = BranchActor::new("provider").replace().respond_all(responders);
        let _provider = mesh.bind(provider).await;
        for way in 0..3 {
            let order = before::Order { amount: 1, tip: 2 };
            let call = shop.order(order, Callback::new(|number: u8| number + 2));
            let call = match way {
                0 => call,
                1 => call.on("provider"),
                _ => call.fail_when_down().within(Duration::MAX),
            };
            assert_eq!(soon(call).await.expect("it is read"), "1 and 2 and 3", "{round}");
        }
    }
}

/// A closure that takes a tuple, or a single value, asks for no names: the record of a typed caller is its list of arguments.
#[actix::test]
async fn a_closure_answers_typed_callers_by_the_order_of_their_arguments() {
    #[meshwork::actions(prefix = "shop")]
    trait Shop {
        async fn sum(&self, a: i64, b: i64) -> Result<i64, ActionError>;
        async fn twice(&self, n: i64) -> Result<i64, ActionError>;
        async fn hello(&self) -> Result<String, ActionError>;
        async fn named(&self, amount: i64, tip: i64) -> Result<i64, ActionError>;
    }
    #[derive(Deserialize)]
    struct Other {
        tip: i64,
        sum: i64,
    }
    let mesh = Mesh::start().await;
    let closures = BranchActor::new("closures")
        .respond("shop/sum", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("shop/twice", |n: i64| async move { Ok(n * 2) })
        .respond("shop/hello", |()| async move { Ok("hello".to_owned()) })
        .respond("shop/named", |other: Other| async move { Ok(other.tip + other.sum) });
    let _closures = mesh.bind(closures).await;
    let shop = ShopRequester::new(&mesh.branch("caller").await);
    assert_eq!(soon(shop.sum(2, 3)).await, Ok(5));
    assert_eq!(soon(shop.twice(21)).await, Ok(42));
    assert_eq!(soon(shop.hello()).await, Ok("hello".to_owned()));
    let error = soon(shop.named(1, 2)).await.expect_err("its names are others");
    assert!(error.message().contains("missing field `sum`"), "{error}");
}
