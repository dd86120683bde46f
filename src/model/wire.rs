//! Serde helpers for the corners of Nomad's JSON: `null` for an empty list, `""` for an absent id.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

/// For `#[serde(with = "null")]` on lists and maps: empty is written as `null`, `null` is read as empty.
pub mod null {
    use super::Deserialize;
    use super::Deserializer;
    use super::Serialize;
    use super::Serializer;

    /// Writes `null` when the value equals its default.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize + Default + PartialEq,
        S: Serializer,
    {
        if *value == T::default() { serializer.serialize_none() } else { value.serialize(serializer) }
    }

    /// Reads `null` as the default.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de> + Default,
        D: Deserializer<'de>,
    {
        Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
    }
}

/// For `#[serde(with = "optional_id")]`: an absent id is the empty string on the wire.
pub mod optional_id {
    use serde::de::Error;

    use super::Deserialize;
    use super::Deserializer;
    use super::Serialize;
    use super::Serializer;

    /// Writes `""` for `None`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        match value {
            Some(id) => id.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    /// Reads `""` and `null` as `None`.
    ///
    /// # Errors
    /// When the text is neither empty nor an id.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
        D: Deserializer<'de>,
    {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// True when a value equals its default; for `skip_serializing_if` on compact stored types.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
