//! How the domain's values stand in JSON, paths and queries: one text form and one schema each.

use std::fmt::Display;
use std::str::FromStr;

use model::{
    ConversationStatus, DeliveryState, Direction, EndedBy, MediaEncryption, TransferMode, TransferStep,
    Transport, WebhookEvent,
};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

/// A value with one text form.
pub(crate) trait Wire: Sized {
    /// Name of its schema.
    const NAME: &'static str;
    /// Reads it; the error is the rule, without what was sent.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes it.
    fn show(&self) -> String;
    /// Describes it.
    fn describe() -> Object;
}

/// A value in its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: Wire> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.show())
    }
}

impl<'de, T: Wire> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        T::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<T: Wire> utoipa::PartialSchema for Text<T> {
    fn schema() -> RefOr<Schema> {
        T::describe().into()
    }
}

impl<T: Wire> utoipa::ToSchema for Text<T> {
    fn name() -> std::borrow::Cow<'static, str> {
        T::NAME.into()
    }
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn parse_as<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| e.to_string())
}

/// Canonical and bare forms of a UUID.
const UUID_LENGTHS: [usize; 2] = [36, 32];

macro_rules! ids {
    ($($alias:ident = $model:ident),+ $(,)?) => { $(
        pub(crate) type $alias = Text<model::$model>;

        impl Wire for model::$model {
            const NAME: &'static str = stringify!($model);
            fn parse(text: &str) -> Result<Self, String> {
                let rule = || "must be a UUID, for example 01960000-0000-7000-8000-000000000000".to_owned();
                if !UUID_LENGTHS.contains(&text.len()) {
                    return Err(rule());
                }
                text.parse().map_err(|_| rule())
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn describe() -> Object {
                string().format(Some(SchemaFormat::Custom("uuid".to_owned()))).build()
            }
        }
    )+ };
}

ids! {
    OrganizationIdText = OrganizationId,
    TrunkIdText = TrunkId,
    AgentIdText = AgentId,
    AgentVersionIdText = AgentVersionId,
    ConversationIdText = ConversationId,
    DecisionIdText = DecisionId,
    KeyIdText = KeyId,
    WebhookIdText = WebhookId,
    DeliveryIdText = DeliveryId,
}

macro_rules! enums {
    ($($alias:ident = $model:ident),+ $(,)?) => { $(
        pub(crate) type $alias = Text<$model>;

        impl Wire for $model {
            const NAME: &'static str = stringify!($model);
            fn parse(text: &str) -> Result<Self, String> {
                parse_as(text)
            }
            fn show(&self) -> String {
                self.as_str().to_owned()
            }
            fn describe() -> Object {
                string().enum_values(Some($model::VALUES.iter().copied())).build()
            }
        }
    )+ };
}

enums! {
    MediaEncryptionText = MediaEncryption,
    TransportText = Transport,
    DirectionText = Direction,
    ConversationStatusText = ConversationStatus,
    EndedByText = EndedBy,
    DeliveryStateText = DeliveryState,
    WebhookEventText = WebhookEvent,
    TransferModeText = TransferMode,
    TransferStepText = TransferStep,
}

/// A scope.
pub(crate) type ScopeText = Text<model::Scope>;

impl Wire for model::Scope {
    const NAME: &'static str = "Scope";
    fn parse(text: &str) -> Result<Self, String> {
        parse_as(text)
    }
    fn show(&self) -> String {
        self.as_str().to_owned()
    }
    fn describe() -> Object {
        string().enum_values(Some(model::Scope::ALL.iter().map(|scope| scope.as_str()))).build()
    }
}

/// An E.164 number.
pub(crate) type E164Text = Text<model::E164>;

impl Wire for model::E164 {
    const NAME: &'static str = "E164";
    fn parse(text: &str) -> Result<Self, String> {
        parse_as(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn describe() -> Object {
        string()
            .pattern(Some("^\\+[1-9][0-9]{1,14}$"))
            .description(Some("A telephone number in E.164."))
            .examples(["+14155550100"])
            .build()
    }
}

/// An instant.
pub(crate) type TimeText = Text<model::Timestamp>;

impl Wire for model::Timestamp {
    const NAME: &'static str = "Timestamp";
    fn parse(text: &str) -> Result<Self, String> {
        // A `+` of the offset that was not percent-encoded arrives as a space.
        match text.len().checked_sub(6).filter(|at| text.as_bytes().get(*at) == Some(&b' ')) {
            Some(at) if text.as_bytes().get(10) != Some(&b' ') => {
                let (instant, offset) = text.split_at(at);
                parse_as(&format!("{instant}+{}", offset.trim_start()))
            }
            _ => parse_as(text),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn describe() -> Object {
        string()
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339; answers are in UTC with microseconds."))
            .examples(["2026-01-31T12:00:00.000000Z"])
            .build()
    }
}

/// A boolean of the query string. Clients write it as their language does: `true`, `True`, `1`.
pub(crate) type FlagText = Text<Flag>;

/// See [`FlagText`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl Wire for Flag {
    const NAME: &'static str = "Flag";
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Self(true)),
            "false" | "0" => Ok(Self(false)),
            _ => Err("must be true or false".to_owned()),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> Object {
        ObjectBuilder::new().schema_type(Type::Boolean).build()
    }
}

/// A whole number of the query string or path.
pub(crate) type CountText = Text<Count>;

/// See [`CountText`]. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) i64);

impl Wire for Count {
    const NAME: &'static str = "Count";
    fn parse(text: &str) -> Result<Self, String> {
        let rule = "must be a whole number from 0 to 2147483647";
        match text.parse::<i64>() {
            Ok(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(Self(n)),
            _ => Err(rule.to_owned()),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> Object {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(i32::MAX)).build()
    }
}

/// A JSON object in the query string: rows that contain it are wanted.
pub(crate) type ContainmentText = Text<Containment>;

/// See [`ContainmentText`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Containment(pub(crate) serde_json::Value);

impl Wire for Containment {
    const NAME: &'static str = "Containment";
    fn parse(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(value @ serde_json::Value::Object(_)) => Ok(Self(value)),
            _ => Err("must be a JSON object, for example {\"team\":\"support\"}".to_owned()),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> Object {
        string().description(Some("A JSON object; rows whose own object contains it match.")).build()
    }
}

/// For a field where leaving it out and sending `null` differ: `None` when left out, `Some(None)` for `null`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// A nested structure that must be an object: derived structs alone would take an array of their fields' values too.
#[derive(Debug)]
pub(crate) struct Strict<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OnlyMaps<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = T;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                std::marker::PhantomData.deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        d.deserialize_map(OnlyMaps(std::marker::PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_whose_plus_became_a_space_is_read() {
        let expected = model::Timestamp(1_700_000_000_000_000);
        for text in ["2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20 00:00", "2023-11-14T22:13:20Z"] {
            assert_eq!(Wire::parse(text), Ok(expected), "{text}");
        }
        assert!(<model::Timestamp as Wire>::parse("2023-11-14 2").is_err());
        assert!(<model::Timestamp as Wire>::parse("é 00:00").is_err());
    }

    #[test]
    fn ids_take_the_two_plain_forms_only() {
        let id = model::TrunkId::new();
        assert_eq!(Wire::parse(&id.to_string()), Ok(id));
        assert_eq!(Wire::parse(&id.0.simple().to_string()), Ok(id));
        for bad in [format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new(), "0".repeat(35)] {
            assert!(<model::TrunkId as Wire>::parse(&bad).is_err(), "{bad}");
        }
    }
}
