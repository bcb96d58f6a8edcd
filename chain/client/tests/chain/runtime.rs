// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which runtimes are known: ours is; one whose pallet has another type anywhere is not; and no
//! description that somebody made up brings the check down.

use codec::{Decode as _, Encode as _};
use frame_metadata::v16::{PalletMetadata, RuntimeMetadataV16};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::form::PortableForm;
use scale_info::{TypeDef, Variant};
use subxt::metadata::Metadata;
use supernode_chain::runtime::{METADATA, PALLET, check};

type Pallet = PalletMetadata<PortableForm>;
type Change = fn(&mut RuntimeMetadataV16);

/// Our description with something changed in it, as bytes.
fn changed(change: impl FnOnce(&mut RuntimeMetadataV16)) -> Vec<u8> {
    let mut prefixed = RuntimeMetadataPrefixed::decode(&mut &METADATA[..]).expect("ours decodes");
    let RuntimeMetadata::V16(metadata) = &mut prefixed.1 else { panic!("ours is version 16") };
    change(metadata);
    prefixed.encode()
}

fn checked(bytes: &[u8]) -> Result<(), String> {
    check(&Metadata::decode(&mut &bytes[..]).expect("it is still a description"))
}

fn pallet<'a>(metadata: &'a mut RuntimeMetadataV16, name: &str) -> &'a mut Pallet {
    let found = metadata.pallets.iter_mut().find(|pallet| pallet.name == name);
    found.expect("the runtime has it")
}

fn type_def(metadata: &mut RuntimeMetadataV16, id: u32) -> &mut TypeDef<PortableForm> {
    let at = usize::try_from(id).expect("a small number");
    &mut metadata.types.types[at].ty.type_def
}

fn variants(metadata: &mut RuntimeMetadataV16, id: u32) -> &mut Vec<Variant<PortableForm>> {
    let TypeDef::Variant(variant) = type_def(metadata, id) else { panic!("calls are an enum") };
    &mut variant.variants
}

fn calls<'a>(metadata: &'a mut RuntimeMetadataV16, of: &str) -> &'a mut Vec<Variant<PortableForm>> {
    let id = pallet(metadata, of).calls.as_ref().expect("it has calls").ty.id;
    variants(metadata, id)
}

fn call<'a>(metadata: &'a mut RuntimeMetadataV16, name: &str) -> &'a mut Variant<PortableForm> {
    let found = calls(metadata, PALLET).iter_mut().find(|call| call.name == name);
    found.expect("the pallet has it")
}

/// The type that a call's argument has.
fn argument(metadata: &mut RuntimeMetadataV16, of: &str, name: &str) -> u32 {
    let fields = &call(metadata, of).fields;
    let found = fields.iter().find(|field| field.name.as_deref() == Some(name));
    found.expect("the call has it").ty.id
}

fn storage_value(metadata: &mut RuntimeMetadataV16, name: &str) -> u32 {
    use frame_metadata::v16::StorageEntryType;
    let storage = pallet(metadata, PALLET).storage.as_ref().expect("it has storage");
    let entry = storage.entries.iter().find(|entry| entry.name == name);
    match &entry.expect("the pallet has it").ty {
        StorageEntryType::Plain(value) | StorageEntryType::Map { value, .. } => value.id,
    }
}

#[test]
fn ours_is_known_and_so_is_what_changes_nothing() {
    assert_eq!(checked(METADATA), Ok(()));
    assert_eq!(changed(|_| ()), METADATA, "writing it again changes nothing");
    for same in [
        changed(|it| calls(it, "Balances")[0].name = "send".to_owned()),
        changed(|it| it.pallets.retain(|pallet| pallet.name != "Balances")),
        changed(|it| call(it, "reserve").docs.clear()),
        changed(|it| pallet(it, PALLET).index = 77),
        // Calls are written by name, with the index that the chain itself names.
        changed(|it| call(it, "reserve").index = 99),
    ] {
        assert!(same != METADATA, "something was changed");
        assert_eq!(checked(&same), Ok(()));
    }
}

#[test]
fn a_runtime_without_the_pallet_is_foreign() {
    let gone = changed(|it| it.pallets.retain(|pallet| pallet.name != PALLET));
    let renamed = changed(|it| pallet(it, PALLET).name = "Supernova".to_owned());
    for foreign in [gone, renamed] {
        let reason = checked(&foreign).expect_err("it has none");
        assert!(reason.contains(PALLET), "{reason}");
    }
}

#[test]
fn one_changed_type_anywhere_is_foreign() {
    let arguments = |it: &mut RuntimeMetadataV16| {
        (argument(it, "reserve", "bytes"), argument(it, "reserve", "max_price"))
    };
    let changes: [(&str, Change); 9] = [
        ("a call renamed", |it| call(it, "renew").name = "prolong".to_owned()),
        ("a call gone", |it| calls(it, PALLET).retain(|call| call.name != "cancel")),
        ("an argument renamed", |it| {
            call(it, "reserve").fields[0].name = Some("size".to_owned());
        }),
        ("an argument gone", |it| drop(call(it, "reserve").fields.pop())),
        ("an error gone", |it| {
            let id = pallet(it, PALLET).error.as_ref().expect("it has errors").ty.id;
            drop(variants(it, id).pop());
        }),
        ("an event's field renamed", |it| {
            let id = pallet(it, PALLET).event.as_ref().expect("it has events").ty.id;
            variants(it, id)[0].fields[0].name = Some("other".to_owned());
        }),
        ("storage gone", |it| {
            let storage = pallet(it, PALLET).storage.as_mut().expect("it has storage");
            drop(storage.entries.pop());
        }),
        ("a stored field gone", |it| {
            let id = storage_value(it, "Deals");
            let TypeDef::Composite(deal) = type_def(it, id) else { panic!("a deal is a record") };
            drop(deal.fields.pop());
        }),
        ("a stored field of another type", |it| {
            let wide = argument(it, "reserve", "max_price");
            let id = storage_value(it, "OpenAudits");
            let TypeDef::Composite(audit) = type_def(it, id) else { panic!("a record") };
            audit.fields[0].ty.id = wide;
        }),
    ];
    let widened = changed(|it| {
        let (bytes, wide) = arguments(it);
        assert_ne!(bytes, wide, "u64 and u128");
        call(it, "reserve").fields[0].ty.id = wide;
    });
    let mut foreign = vec![("an argument of another type", widened)];
    foreign.extend(changes.map(|(what, change)| (what, changed(change))));
    for (what, bytes) in foreign {
        let reason = checked(&bytes).expect_err(what);
        assert!(reason.contains("other types"), "{what}: {reason}");
    }
}

#[test]
fn a_description_that_is_cut_off_is_an_error_and_nothing_worse() {
    let cuts = (0..METADATA.len()).step_by(97).chain(METADATA.len() - 40..METADATA.len());
    for len in cuts {
        let decoded = Metadata::decode(&mut &METADATA[..len]);
        assert!(decoded.is_err(), "{len} of {} bytes are not all", METADATA.len());
    }
}

#[test]
fn a_description_with_spoiled_bytes_brings_nothing_down() {
    // A step that shares no factor with the length visits places all over it.
    let mut decoded = 0;
    for round in 0..400 {
        let mut bytes = METADATA.to_vec();
        let at = 5 + round * 7_919 % (bytes.len() - 5);
        bytes[at] ^= 1 << (round % 8);
        if let Ok(metadata) = Metadata::decode(&mut &bytes[..]) {
            decoded += 1;
            // Known or not: what counts is that there is an answer.
            let _known = check(&metadata);
        }
    }
    assert!(decoded > 50, "the check was asked {decoded} times of 400");
}

#[test]
fn types_that_are_not_there_bring_nothing_down() {
    let gone = u32::MAX / 2;
    for spoiled in [
        changed(|it| call(it, "reserve").fields[0].ty.id = gone),
        changed(|it| {
            pallet(it, PALLET).calls.as_mut().expect("it has calls").ty.id = gone;
        }),
        changed(|it| {
            let id = storage_value(it, "Deals");
            let TypeDef::Composite(deal) = type_def(it, id) else { panic!("a deal is a record") };
            deal.fields[0].ty.id = gone;
        }),
    ] {
        if let Ok(metadata) = Metadata::decode(&mut &spoiled[..]) {
            assert!(check(&metadata).is_err(), "it is not ours");
        }
    }
}
