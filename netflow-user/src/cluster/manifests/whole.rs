//! One document → its objects, each there as a whole before it is read into the type of its kind: a broken one does not spoil the
//! rest, and is known by its line.

use super::document::{Contents, NO_OBJECT, is_list, item_type};
use super::located::Fields;
use crate::cluster::object::Kind;
use crate::cluster::pool::Pool;
use kube::core::TypeMeta;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Reads a document, or an item of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    /// It is an item of a list.
    listed: bool,
    /// What the list says that its items are.
    item: Option<TypeMeta>,
}

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = Contents;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Contents, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    /// Nothing but comments.
    fn visit_unit<E: Error>(self) -> Result<Contents, E> {
        Ok(Contents::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Contents, A::Error> {
        let mut fields = Fields::new();
        let mut items = None;
        let mut meta = self.item;
        while let Some(key) = map.next_key::<String>()? {
            if meta.as_ref().is_some_and(is_skipped) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let kind = text(&fields, "kind");
            if key == "items" && kind.is_none_or(is_list) {
                let item = item_type(text(&fields, "apiVersion"), kind);
                items = Some(map.next_value_seed(Items(item))?);
                continue;
            }
            fields.push((key, map.next_value()?));
            meta = meta.or_else(|| said(&fields));
        }
        match meta {
            None if self.listed => Ok(Contents::untyped(fields)),
            None => Err(A::Error::custom(NO_OBJECT)),
            Some(TypeMeta { api_version, kind }) if is_list(&kind) => {
                Ok(items.unwrap_or_default().listed(&api_version, &kind))
            }
            Some(meta) => Ok(Contents::whole(&meta, fields)),
        }
    }
}

/// An object that need not be held: schemas of custom resources are large and deep.
fn is_skipped(meta: &TypeMeta) -> bool {
    !is_list(&meta.kind) && Kind::of(&meta.api_version, &meta.kind).is_none()
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let (_, value) = fields.iter().find(|(key, _)| key == name)?;
    value.text()
}

/// What an object says that it is.
fn said(fields: &Fields) -> Option<TypeMeta> {
    Some(TypeMeta {
        api_version: text(fields, "apiVersion")?.to_owned(),
        kind: text(fields, "kind")?.to_owned(),
    })
}

/// The items of a list, which may say what they are.
struct Items(Option<TypeMeta>);

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
        let item = Whole {
            listed: true,
            item: self.0,
        };
        let mut number = 0;
        while let Some(mut read) = seq.next_element_seed(item.clone())? {
            number += 1;
            for error in &mut read.broken {
                error.what = format!("item {number} of the list: {}", error.what);
            }
            read.objects.iter_mut().for_each(|o| pool.share(o));
            all.add(read);
        }
        Ok(all)
    }
}
