// SPDX-License-Identifier: MIT OR Apache-2.0
//! The runtime this program was built for: types made from its committed metadata.
//!
//! `metadata/supernode-dev.scale` is the metadata of the development runtime; a test keeps it true.
//! What counts about it is one pallet: a real chain may carry any others around it, and is known
//! as long as this one has the same calls, storage, events and errors, type by type.

use codec::Decode as _;
use scale_info::TypeDef;
use scale_info::form::PortableForm;
use subxt::metadata::{Metadata, PalletMetadata};

/// The pallet's name in a runtime.
pub const PALLET: &str = "Supernode";

/// The metadata the types were made from.
pub const METADATA: &[u8] = include_bytes!("../metadata/supernode-dev.scale");

/// Compares a chain's pallet with ours.
///
/// # Errors
/// Says what differs.
pub fn check(chain: &Metadata) -> Result<(), String> {
    let ours = Metadata::decode(&mut &METADATA[..]).expect("a test decodes what is committed");
    let ours = ours.pallet_by_name(PALLET).expect("a test finds our pallet in it");
    let theirs =
        chain.pallet_by_name(PALLET).ok_or_else(|| format!("it has no {PALLET} pallet"))?;
    if !is_whole(chain, &theirs) {
        return Err("it speaks of types that it does not describe".to_owned());
    }
    if theirs.hash() == ours.hash() {
        Ok(())
    } else {
        Err(format!("its {PALLET} pallet has other types than ours"))
    }
}

/// Whether every type that is named is there. The comparison takes that for granted, and panics.
fn is_whole(chain: &Metadata, pallet: &PalletMetadata<'_>) -> bool {
    let count = chain.types().types.len();
    let is_there = |id: u32| usize::try_from(id).is_ok_and(|id| id < count);
    let named = [pallet.call_ty_id(), pallet.event_ty_id(), pallet.error_ty_id()];
    let mut types = chain.types().types.iter();
    let stored = pallet.storage().map(|storage| storage.entries()).unwrap_or_default();
    named.into_iter().flatten().all(is_there)
        && types.all(|it| named_by(&it.ty.type_def).into_iter().all(is_there))
        && pallet.constants().all(|constant| is_there(constant.ty()))
        && stored
            .iter()
            .all(|entry| is_there(entry.value_ty()) && entry.keys().all(|key| is_there(key.key_id)))
        && pallet.view_functions().all(|function| {
            is_there(function.output_ty()) && function.inputs().all(|input| is_there(input.id))
        })
}

/// The types that a type is made of.
fn named_by(def: &TypeDef<PortableForm>) -> Vec<u32> {
    match def {
        TypeDef::Composite(def) => def.fields.iter().map(|field| field.ty.id).collect(),
        TypeDef::Variant(def) => {
            let fields = def.variants.iter().flat_map(|variant| &variant.fields);
            fields.map(|field| field.ty.id).collect()
        }
        TypeDef::Sequence(def) => vec![def.type_param.id],
        TypeDef::Array(def) => vec![def.type_param.id],
        TypeDef::Tuple(def) => def.fields.iter().map(|field| field.id).collect(),
        TypeDef::Primitive(_) => Vec::new(),
        TypeDef::Compact(def) => vec![def.type_param.id],
        TypeDef::BitSequence(def) => vec![def.bit_store_type.id, def.bit_order_type.id],
    }
}

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "made by a macro from the metadata, which carries the pallet's own documentation"
)]
#[subxt::subxt(runtime_metadata_path = "metadata/supernode-dev.scale")]
pub(crate) mod api {}
