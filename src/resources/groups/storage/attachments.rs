//! Volume attachments. Follows k8s.io/kubernetes/pkg/registry/storage/volumeattachment/strategy.go and
//! pkg/apis/storage/validation.

use crate::meta::errors::Reason;
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::validate::sources::driver_name;
use crate::resources::groups::core::volumes;
use crate::resources::{Deletion, MetaOnStatus, Printing, Rules, StatusRules, metadata};

/// The maximum total size of attachmentMetadata, in bytes.
const METADATA_SIZE: usize = 256 << 10;
/// The maximum length of an error message, in bytes.
const MESSAGE_SIZE: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// The rules of volume attachments.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let spec = object.object_mut().object_mut("spec");
        if let Some(inline) = spec
            .get_mut("source")
            .and_then(|source| source.get_mut("inlineVolumeSpec"))
            .filter(|inline| !inline.is_null())
        {
            volumes::source_defaults(inline);
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        // Upstream reports declarative validation last, and skips it for the immutable spec.
        let Some(old) = old else {
            self::object(object, errors);
            return declared(spec, errors);
        };
        driver_name(spec.field("attacher"), errors);
        self::object(object, errors);
        spec.frozen(old.value.at("spec"), "storage.VolumeAttachmentSpec", errors);
    },
    status: StatusRules {
        validate: |object, _, _, errors| {
            self::object(object, errors);
            declared(object.field("spec"), errors);
        },
        metadata: MetaOnStatus::Kept,
        ..StatusRules::DEFAULT
    },
    printing: Printing::of(|object, now| {
        let spec = object.at("spec");
        vec![
            object.at("metadata").str("name").into(),
            spec.str("attacher").into(),
            spec.at("source").str("persistentVolumeName").into(),
            spec.str("nodeName").into(),
            object.at("status").bool("attached").into(),
            table::age(object, now),
        ]
    }),
    unconditional_update: false,
    deletion: Deletion::RETURNS_OBJECT,
    internal: "storage.VolumeAttachment",
    ..Rules::DEFAULT
};

fn object(object: At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let source = spec.field("source");
    let (inline, volume) = (
        source.field("inlineVolumeSpec"),
        source.field("persistentVolumeName"),
    );
    match (inline.is_absent(), volume.is_absent()) {
        (true, true) => errors.required(source.path, ONE_SOURCE),
        (false, false) => errors.forbidden(source.path, ONE_SOURCE),
        (true, false) => {
            volume.required("must specify non empty persistentVolumeName", errors);
        }
        (false, true) => volumes::inline_spec(inline, errors),
    }
    spec.field("nodeName")
        .checked(|name| names::subdomain_name(name, false), errors);
    let status = object.field("status");
    let metadata = status.field("attachmentMetadata");
    let size: usize = metadata
        .entries()
        .map(|(key, value)| key.len() + value.str().len())
        .sum();
    if size > METADATA_SIZE {
        errors.too_long(metadata.path, METADATA_SIZE);
    }
    for name in ["attachError", "detachError"] {
        let error = status.field(name);
        let message = error.field("message");
        if message.str().len() > MESSAGE_SIZE {
            errors.too_long(message.path, MESSAGE_SIZE);
        }
        let code = error.field("errorCode");
        if code.int().is_some_and(|code| code < 0) {
            code.invalid(names::range_error(0, i64::from(i32::MAX)), errors);
        }
    }
    volume.checked_if_there(|name| names::subdomain_name(name, false), errors);
}

fn declared(spec: At<'_>, errors: &mut Errors) {
    let attacher = spec.field("attacher");
    if attacher.required("", errors) {
        attacher.checked(names::long_name_caseless, errors);
        if attacher.str().chars().count() > 63 {
            errors.push(
                Reason::TooLong,
                attacher.path,
                "Too long: may not be more than 63 characters",
            );
        }
    }
}
