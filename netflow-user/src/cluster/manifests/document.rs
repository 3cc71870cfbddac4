//! One document → its objects.
//!
//! A document is read in one pass, straight into the type of its kind: only fields that come before `kind` are held
//! back. A list of 50,000 Pods so costs the memory of what is kept of them, and errors keep their place in the text.

use crate::cluster::object::{Kind, Object};
use crate::cluster::pool::Pool;
use kube::core::TypeMeta;
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Value, map};
use std::fmt;

/// What a document holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Objects of kinds that matter.
    pub objects: Vec<Object>,
    /// Kinds seen, empty lists of one kind included.
    pub kinds: Vec<Kind>,
    /// How many objects of other kinds there were.
    pub skipped: usize,
    /// Broken items of a list; only where they are read one by one.
    pub broken: Vec<String>,
    /// Items that do not say what they are; the list that holds them may.
    untyped: Vec<Map<String, Value>>,
}

impl Contents {
    fn add(&mut self, other: Contents) {
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
    /// Read the items of a list one by one, so that a broken one does not spoil the rest.
    pub tolerant: bool,
    /// It is an item of a list.
    listed: bool,
    /// What the list says that its items are.
    item: Option<TypeMeta>,
}

impl Document {
    /// A document that stands for itself.
    pub fn new(tolerant: bool) -> Document {
        Document {
            tolerant,
            ..Document::default()
        }
    }
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
            return object(&item, Map::new(), map);
        }
        let (mut api_version, mut kind) = (None, None);
        let mut early = Map::new();
        let mut items = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => api_version = Some(map.next_value::<String>()?),
                "kind" => kind = Some(map.next_value::<String>()?),
                "items" if kind.as_deref().is_none_or(is_list) => {
                    items = Some(map.next_value_seed(Items(Document {
                        tolerant: self.tolerant,
                        listed: true,
                        item: item_type(api_version.as_deref(), kind.as_deref()),
                    }))?);
                }
                _ => {
                    early.insert(key, map.next_value()?);
                }
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
                list(&api_version, &kind, items.unwrap_or_default()).map_err(A::Error::custom)
            }
            _ if self.listed => Ok(Contents {
                untyped: vec![early],
                ..Contents::default()
            }),
            _ => Err(A::Error::custom(
                "not a Kubernetes object: apiVersion or kind is missing",
            )),
        }
    }
}

fn is_list(kind: &str) -> bool {
    kind.ends_with("List")
}

/// What the items of a `PodList` are; those of a `List` say it themselves.
fn item_type(api_version: Option<&str>, kind: Option<&str>) -> Option<TypeMeta> {
    let item = kind?.strip_suffix("List").filter(|k| !k.is_empty())?;
    Some(TypeMeta {
        api_version: api_version?.to_owned(),
        kind: item.to_owned(),
    })
}

/// The rest of an object of which apiVersion and kind are known.
fn object<'de, A: MapAccess<'de>>(
    meta: &TypeMeta,
    early: Map<String, Value>,
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
    Ok(Contents {
        objects: vec![kind.read(MapAccessDeserializer::new(whole))?],
        kinds: vec![kind],
        ..Contents::default()
    })
}

/// A list whose items were read before it was known what they are.
fn list(api_version: &str, kind: &str, mut items: Contents) -> Result<Contents, String> {
    items.kinds.extend(Kind::of(api_version, kind));
    if items.untyped.is_empty() {
        return Ok(items);
    }
    let Some(item) = item_type(Some(api_version), Some(kind)) else {
        return Err("an item of the list lacks apiVersion or kind".into());
    };
    for fields in std::mem::take(&mut items.untyped) {
        let document = Document {
            item: Some(item.clone()),
            ..Document::default()
        };
        let read = document.deserialize(Value::Object(fields));
        items.add(read.map_err(|e| e.to_string())?);
    }
    Ok(items)
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
        let mut all = Contents::default();
        if !self.0.tolerant {
            let mut pool = Pool::default();
            while let Some(mut item) = seq.next_element_seed(self.0.clone())? {
                item.objects.iter_mut().for_each(|o| pool.share(o));
                all.add(item);
            }
            return Ok(all);
        }
        let mut number = 0;
        while let Some(value) = seq.next_element::<Value>()? {
            number += 1;
            match self.0.clone().deserialize(value) {
                Ok(item) => all.add(item),
                Err(error) => all
                    .broken
                    .push(format!("item {number} of the list: {error}")),
            }
        }
        Ok(all)
    }
}

/// Fields already taken from a map, then the rest of it.
struct Chain<A> {
    early: map::IntoIter,
    value: Option<Value>,
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
