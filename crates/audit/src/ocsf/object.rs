//! The attributes of OCSF that are used, in the order in which they are written.

use serde::Serialize;
use stockade_types::{Enforcement, LayerStatus, Reason};

use super::SCHEMA;
use crate::event::{Action, SegmentKind};

#[derive(Serialize, Default)]
pub(super) struct Line<'a> {
    pub(super) time: u64,
    pub(super) class_uid: u32,
    pub(super) class_name: &'static str,
    pub(super) category_uid: u32,
    pub(super) activity_id: u32,
    pub(super) activity_name: &'static str,
    pub(super) type_uid: u32,
    pub(super) severity_id: u8,
    pub(super) status_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_detail: Option<&'a str>,
    pub(super) message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration: Option<u64>,
    pub(super) metadata: Metadata,
    pub(super) device: Device<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action_id: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disposition_id: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app: Option<Product>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_info: Option<ConnectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_endpoint: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) firewall_rule: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_request: Option<HttpRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_response: Option<HttpResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<ProcessObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finding_info: Option<FindingInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_name: Option<&'static str>,
    pub(super) unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
pub(super) struct Metadata {
    pub(super) version: &'static str,
    pub(super) product: Product,
    pub(super) profiles: &'static [&'static str],
    pub(super) sequence: u64,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { version: SCHEMA, product: Product::default(), profiles: &["host", "security_control"], sequence: 0 }
    }
}

#[derive(Serialize)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) vendor_name: &'static str,
    pub(super) version: &'static str,
}

impl Default for Product {
    fn default() -> Self {
        Self { name: "Stockade", vendor_name: "Stockade", version: env!("CARGO_PKG_VERSION") }
    }
}

#[derive(Serialize, Default)]
pub(super) struct Device<'a> {
    pub(super) uid: &'a str,
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<ProcessObject<'a>>,
}

#[derive(Serialize)]
pub(super) struct ProcessObject<'a> {
    pub(super) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmd_line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<File<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) lineage: &'a [String],
    pub(super) user: User,
}

#[derive(Serialize)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) type_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hashes: Option<[Fingerprint<'a>; 1]>,
}

#[derive(Serialize)]
pub(super) struct Fingerprint<'a> {
    pub(super) algorithm: &'static str,
    pub(super) algorithm_id: u8,
    pub(super) value: &'a str,
}

#[derive(Serialize)]
pub(super) struct User {
    pub(super) uid: String,
}

#[derive(Serialize)]
pub(super) struct ConnectionInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    pub(super) direction_id: u8,
    pub(super) protocol_num: u8,
}

#[derive(Serialize)]
pub(super) struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
}

#[derive(Serialize)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct HttpRequest<'a> {
    pub(super) http_method: &'a str,
    pub(super) url: Url<'a>,
}

#[derive(Serialize)]
pub(super) struct Url<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
}

#[derive(Serialize)]
pub(super) struct HttpResponse {
    pub(super) code: u16,
}

#[derive(Serialize)]
pub(super) struct Traffic {
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
}

#[derive(Serialize)]
pub(super) struct FindingInfo {
    pub(super) title: &'static str,
    pub(super) uid: String,
}

/// What OCSF has no attribute for. `prev` comes last: the chain appends `hash` behind it.
#[derive(Serialize, Default)]
pub(super) struct Unmapped<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) door: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suggestion: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suppressed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) argv: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) script: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<Vec<LayerObject<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<SegmentObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct LayerObject<'a> {
    pub(super) layer: &'static str,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'a str>,
}

impl<'a> LayerObject<'a> {
    pub(super) fn of(status: &'a LayerStatus) -> Self {
        let (state, why) = match &status.enforcement {
            Enforcement::Enforced => ("enforced", None),
            Enforcement::Partial(why) => ("partial", Some(why.as_str())),
            Enforcement::Absent(why) => ("absent", Some(why.as_str())),
        };
        Self { layer: status.layer.name(), state, why }
    }
}

#[derive(Serialize)]
pub(super) struct SegmentObject<'a> {
    pub(super) kind: SegmentKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) torn: Option<&'a crate::event::Torn>,
}
