//! Stable reason codes: one word per cause, the same in the 403 body, the audit log, metrics and the docs.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// Why something was refused, failed or noticed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for tests and docs.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

reasons! {
    /// No endpoint of the policy matches host and port.
    NoPolicy = "no_policy",
    /// A user's Rego module denied it.
    CustomDeny = "custom_deny",
    /// A `deny` rule of the policy matches.
    PolicyDeny = "policy_deny",
    /// No rule of the endpoint allows the request, or it is of a kind that none can (CONNECT inside a tunnel, for one).
    L7 = "l7",
    /// The endpoint names executables, and it is not known which one asks.
    IdentityUnresolved = "identity_unresolved",
    /// The endpoint names executables, and the one that asks is none of them.
    IdentityNoMatch = "identity_no_match",
    /// Programs of several executables hold the connection.
    IdentityAmbiguous = "identity_ambiguous",
    /// The program that opened the connection has ended, or runs another executable.
    IdentityChanged = "identity_changed",
    /// The policy engine failed, timed out or gave no answer.
    EngineError = "engine_error",
    /// The permit was given by a policy that is no longer in force and the present one denies.
    StaleGeneration = "stale_generation",
    /// The feature is not available in this version.
    NotAvailable = "not_available",
    /// Malformed host, port or authority.
    BadAuthority = "bad_authority",
    /// `Host`, request target, CONNECT authority or synthetic address disagree.
    AuthorityMismatch = "authority_mismatch",
    /// Not a request a proxy can serve.
    BadRequest = "bad_request",
    /// Ambiguous or malformed HTTP framing.
    Framing = "framing",
    /// A request target that servers read in different ways.
    Path = "path",
    /// Neither TLS nor HTTP where one of them is required.
    UnknownProtocol = "unknown_protocol",
    /// HTTP/2 without TLS.
    H2c = "h2c",
    /// Upgrade that was not asked for or not allowed.
    Upgrade = "upgrade",
    /// TLS server name differs from the authority.
    SniMismatch = "sni_mismatch",
    /// TLS server name absent, malformed, or hidden by ECH.
    SniInvalid = "sni_invalid",
    /// TLS cannot be inspected here.
    TlsUnavailable = "tls_unavailable",
    /// Too many certificates for new hosts were asked for.
    CertMintRate = "cert_mint_rate",
    /// The command does not accept the sandbox's certificate, as programs do that pin the host's.
    ClientRejectedCert = "client_rejected_cert",
    /// TLS with the command failed.
    ClientTls = "client_tls",
    /// Loopback, unspecified, link-local or unusable address.
    SsrfAlwaysBlocked = "ssrf_always_blocked",
    /// Cloud metadata service.
    SsrfMetadata = "ssrf_metadata",
    /// Private address that the endpoint does not list.
    SsrfInternal = "ssrf_internal",
    /// The supervisor's own address.
    SsrfSelf = "ssrf_self",
    /// Port of a cluster control plane.
    ControlPlanePort = "control_plane_port",
    /// The name is in no endpoint; answered locally.
    DnsNoPolicy = "dns_no_policy",
    /// The upstream resolver's answer is malformed.
    DnsInvalid = "dns_invalid",
    /// Too many DNS queries.
    DnsVolume = "dns_volume",
    /// Name resolution failed.
    UpstreamDns = "upstream_dns",
    /// No address of the host could be reached.
    UpstreamConnect = "upstream_connect",
    /// No trusted TLS connection to the upstream.
    UpstreamTls = "upstream_tls",
    /// The upstream broke HTTP framing.
    UpstreamFraming = "upstream_framing",
    /// The destination is in the synthetic pool but maps to no name.
    MappingUnknown = "mapping_unknown",
    /// No synthetic address is left for another name.
    MappingExhausted = "mapping_exhausted",
    /// Direct traffic that the fence refused.
    Bypass = "bypass",
    /// The endpoint's `limits.request_body` was reached.
    TxLimit = "tx_limit",
    /// The endpoint's `limits.requests_per_minute` was reached.
    RateLimit = "rate_limit",
    /// The content is encoded in a way that cannot be read, or searched for credentials.
    Uninspectable = "uninspectable",
    /// A bound was reached (head size, connections, time).
    Limit = "limit",
    /// The fence is not as it was installed.
    FenceDrift = "fence_drift",
    /// The fence cannot be installed.
    FenceUnavailable = "fence_unavailable",
    /// A required layer of the wall is not enforced.
    LayerUnavailable = "layer_unavailable",
    /// A mask of a hidden path was detached, or a protected path written.
    ProtectedWrite = "protected_write",
    /// Audit events were lost.
    AuditLost = "audit_lost",
    /// The audit log cannot be written.
    LogUnavailable = "log_unavailable",
    /// A policy update was refused.
    PolicyRejected = "policy_rejected",
    /// No policy: everything is denied.
    DefaultDeny = "default_deny",
    /// A placeholder, or a request that needs a credential, where that credential is not bound.
    CredScope = "cred_scope",
    /// A placeholder at its own endpoint, in a place where it is not replaced.
    CredSurface = "cred_surface",
    /// A placeholder that stands for nothing, or whose value cannot be had.
    CredUnresolved = "cred_unresolved",
    /// The value cannot be written where it belongs.
    CredInvalid = "cred_invalid",
    /// The command's own token on an endpoint whose credentials Stockade puts in.
    ForeignCredential = "foreign_credential",
    /// An AWS request that cannot be signed again.
    Sigv4 = "sigv4",
    /// A response held a credential's value; it was replaced.
    SecretInResponse = "secret_in_response",
    /// Nobody that the sandbox's SSH server knows.
    SshAuth = "ssh_auth",
    /// A gateway's handshake that is not for this sandbox, not for now, or not a gateway's.
    SshToken = "ssh_token",
    /// A gateway's handshake that was used before.
    Replay = "replay",
    /// The file that says who may come in over SSH changed: it is followed, or nobody comes in by it.
    SshKeys = "ssh_keys",
    /// Something that the SSH server does not do for anybody.
    SshRequest = "ssh_request",
    /// A forwarded connection to anything but the sandbox's own loopback.
    ForwardTarget = "forward_target",
    /// The machine around the sandbox is set up weakly, or the run only records network decisions (`learn`).
    OuterWeak = "outer_weak",
    /// A granted directory holds a socket that somebody outside listens on.
    SharedSocket = "shared_socket",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}
