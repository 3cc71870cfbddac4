//! One document → its objects, straight from the text into the type of each kind.
//!
//! Only fields that come before `kind` are held back. A list of 50,000 Pods so costs the memory of what is kept of them, and errors
//! keep their place in the text. The first object that is broken ends it.

use super::located::{Fields, Located, Misread};
use crate::cluster::object::{Kind, Object};
use crate::cluster::pool::Pool;
use kube::core::TypeMeta;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use std::fmt;
use std::vec;

/// What a document holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Objects of kinds that matter.
    pub objects: Vec<Object>,
    /// Kinds seen, empty lists of one kind included.
    pub kinds: Vec<Kind>,
    /// How many objects of other kinds there were.
    pub skipped: usize,
    /// What is wrong with others of these kinds.
    pub broken: Vec<Misread>,
    /// Items that do not say what they are; the list that holds them may.
    untyped: Vec<Fields>,
}

impl Contents {
    /// An object all of whose fields are there.
    pub fn whole(meta: &TypeMeta, fields: Fields) -> Contents {
        let Some(kind) = Kind::of(&meta.api_version, &meta.kind) else {
            return Contents {
                skipped: 1,
                ..Contents::default()
            };
        };
        let line = line_of(&fields);
        match kind.read(MapDeserializer::new(fields.into_iter())) {
            Ok(object) => Contents::one(kind, object),
            Err(error) => Contents {
                broken: vec![Misread {
                    line: error.line.or(line),
                    ..error
                }],
                ..Contents::default()
            },
        }
    }

    /// An item that does not say what it is.
    pub fn untyped(fields: Fields) -> Contents {
        Contents {
            untyped: vec![fields],
            ..Contents::default()
        }
    }

    fn one(kind: Kind, object: Object) -> Contents {
        Contents {
            objects: vec![object],
            kinds: vec![kind],
            ..Contents::default()
        }
    }

    /// What a list holds that says what it is, after its items or before.
    pub fn listed(mut self, api_version: &str, kind: &str) -> Contents {
        self.kinds.extend(Kind::of(api_version, kind));
        let item = item_type(Some(api_version), Some(kind));
        for fields in std::mem::take(&mut self.untyped) {
            match &item {
                Some(item) => self.add(Contents::whole(item, fields)),
                None => self.broken.push(Misread {
                    line: line_of(&fields),
                    what: "an item of the list lacks apiVersion or kind".into(),
                }),
            }
        }
        self
    }

    pub fn add(&mut self, other: Contents) {
        self.objects.extend(other.objects);
        self.kinds.extend(other.kinds);
        self.kinds.sort_unstable();
        self.kinds.dedup();
        self.skipped += other.skipped;
        self.broken.extend(other.broken);
        self.untyped.extend(other.untyped);
    }
}

/// Reads a document, or an item of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    /// It is an item of a list.
    listed: bool,
    /// What the list says that its items are.
    item: Option<TypeMeta>,
}

impl<'de> DeserializeSeed<'de> for Document {
    type Value = Contents;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Contents, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    /// Nothing but comments.
    fn visit_unit<E: Error>(self) -> Result<Contents, E> {
        Ok(Contents::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Contents, A::Error> {
        if let Some(item) = self.item {
            return object(&item, Fields::new(), map);
        }
        let (mut api_version, mut kind) = (None, None);
        let mut early = Fields::new();
        let mut items = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => api_version = Some(map.next_value::<String>()?),
                "kind" => kind = Some(map.next_value::<String>()?),
                "items" if kind.as_deref().is_none_or(is_list) => {
                    items = Some(map.next_value_seed(Items(Document {
                        listed: true,
                        item: item_type(api_version.as_deref(), kind.as_deref()),
                    }))?);
                }
                _ => early.push((key, map.next_value()?)),
            }
            if let (Some(api_version), Some(kind)) = (&api_version, &kind)
                && !is_list(kind)
            {
                let meta = TypeMeta {
                    api_version: api_version.clone(),
                    kind: kind.clone(),
                };
                return object(&meta, early, map);
            }
        }
        match (api_version, kind) {
            (Some(api_version), Some(kind)) => {
                let all = items.unwrap_or_default().listed(&api_version, &kind);
                match all.broken.first() {
                    Some(error) => Err(A::Error::custom(error)),
                    None => Ok(all),
                }
            }
            _ if self.listed => Ok(Contents::untyped(early)),
            _ => Err(A::Error::custom(NO_OBJECT)),
        }
    }
}

/// Where an object begins.
fn line_of(fields: &Fields) -> Option<usize> {
    fields.first().and_then(|(_, value)| value.line())
}

/// Of a map that is no object.
pub(super) const NO_OBJECT: &str = "not a Kubernetes object: apiVersion or kind is missing";

pub(super) fn is_list(kind: &str) -> bool {
    kind.ends_with("List")
}

/// What the items of a `PodList` are; those of a `List` say it themselves.
pub(super) fn item_type(api_version: Option<&str>, kind: Option<&str>) -> Option<TypeMeta> {
    let item = kind?.strip_suffix("List").filter(|k| !k.is_empty())?;
    Some(TypeMeta {
        api_version: api_version?.to_owned(),
        kind: item.to_owned(),
    })
}

/// The rest of an object of which apiVersion and kind are known.
fn object<'de, A: MapAccess<'de>>(
    meta: &TypeMeta,
    early: Fields,
    mut rest: A,
) -> Result<Contents, A::Error> {
    let Some(kind) = Kind::of(&meta.api_version, &meta.kind) else {
        while rest.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        return Ok(Contents {
            skipped: 1,
            ..Contents::default()
        });
    };
    let whole = Chain {
        early: early.into_iter(),
        value: None,
        rest,
    };
    let object = kind.read(MapAccessDeserializer::new(whole))?;
    Ok(Contents::one(kind, object))
}

/// The items of a list, each read as the document says.
struct Items(Document);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Contents;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Contents, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_unit<E: Error>(self) -> Result<Contents, E> {
        Ok(Contents::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Contents, A::Error> {
        let (mut all, mut pool) = (Contents::default(), Pool::default());
        while let Some(mut item) = seq.next_element_seed(self.0.clone())? {
            item.objects.iter_mut().for_each(|o| pool.share(o));
            all.add(item);
        }
        Ok(all)
    }
}

/// Fields already taken from a map, then the rest of it.
struct Chain<A> {
    early: vec::IntoIter<(String, Located)>,
    value: Option<Located>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Chain<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.early.next() {
            Some((key, value)) => {
                self.value = Some(value);
                seed.deserialize(key.into_deserializer()).map(Some)
            }
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.rest.next_value_seed(seed),
        }
    }
}
