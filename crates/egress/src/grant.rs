//! A permit together with the question it answered, so that it can be asked again when the policy changes.

use std::{net::IpAddr, sync::Arc};

use stockade_policy::{
    Denial, Intent, NameVerdict, Permit, Protocol, Request, RequestPermit, RequestVerdict, TlsMode, Verdict,
};
use stockade_secrets::Credentials;
use stockade_tls::Extra;
use stockade_types::{Host, Reason};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use crate::{
    config::Config,
    destination::{self, DestinationError},
    door::Shared,
    in_force::InForce,
    peer::Client,
    record::{self, Facts},
    rescue::Refusal,
};

/// What an open connection holds.
#[derive(Clone)]
pub(crate) struct Grant {
    intent: Intent,
    client: Client,
    permit: Permit,
    /// The address dialled, once there is one.
    addr: Option<IpAddr>,
    /// The snapshot that gave the permit, so that requests are decided by the same.
    snapshot: Arc<InForce>,
    /// Has seen the snapshot that gave the permit, and no later one.
    policy: watch::Receiver<Arc<InForce>>,
    config: Arc<Config>,
}

impl Grant {
    /// Asks the policy, after the rules that no policy lifts.
    pub(crate) fn ask(shared: &Shared, client: &Client, intent: Intent) -> Result<Self, (Intent, Refusal)> {
        if let Err(blocked) = destination::precheck(&intent.host) {
            return Err((intent, blocked.into()));
        }
        let mut policy = shared.policy.clone();
        let snapshot = Arc::clone(&policy.borrow_and_update());
        match snapshot.authorize(&client.asking(&intent, &snapshot)) {
            Verdict::Allow(permit) => {
                let (client, config) = (client.clone(), Arc::clone(&shared.config));
                Ok(Self { intent, client, permit, addr: None, snapshot, policy, config })
            }
            Verdict::Deny(denial) => Err((intent, denied(client, denial))),
        }
    }

    pub(crate) fn intent(&self) -> &Intent {
        &self.intent
    }

    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn addr(&self) -> Option<IpAddr> {
        self.addr
    }

    /// Whether TLS ends here and requests are judged.
    pub(crate) fn intercepts(&self) -> bool {
        let terms = self.permit.terms();
        terms.protocol != Protocol::Tcp && terms.tls == TlsMode::Inspect
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The credentials of the policy in force.
    pub(crate) fn credentials(&self) -> Option<Arc<Credentials>> {
        self.snapshot.credentials.clone()
    }

    /// What its endpoint wants towards the host besides what is usual.
    pub(crate) fn extra(&self) -> Option<&Extra> {
        self.snapshot.extras.get(&self.permit.terms().endpoint)
    }

    /// Notes the address that a kept connection goes to.
    pub(crate) fn reached(&mut self, addr: IpAddr) {
        self.addr = Some(addr);
    }

    /// Asks the policy about one request: the policy in force, if the connection is still allowed by it.
    pub(crate) fn authorize(&mut self, request: &Request) -> Result<RequestPermit, Refusal> {
        self.check()?;
        match self.snapshot.authorize_request(&self.permit, request) {
            RequestVerdict::Allow(permit) => Ok(permit),
            RequestVerdict::Deny(denial) => Err(Refusal::Policy(Box::new(denial))),
        }
    }

    /// The same for a WebSocket whose messages are authorised one by one.
    pub(crate) fn authorize_socket(&mut self, request: &Request) -> Result<RequestPermit, Refusal> {
        self.check()?;
        match self.snapshot.authorize_socket(&self.permit, request) {
            RequestVerdict::Allow(permit) => Ok(permit),
            RequestVerdict::Deny(denial) => Err(Refusal::Policy(Box::new(denial))),
        }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            door: self.intent.door,
            intent: Some(&self.intent),
            permit: Some(&self.permit),
            client: Some(&self.client),
            generation: self.permit.generation(),
        }
    }

    /// Resolves, checks and connects.
    pub(crate) async fn dial(&mut self, shared: &Shared) -> Result<TcpStream, DestinationError> {
        self.count_name(shared);
        let destination = destination::resolve(&self.permit, &*shared.resolver, &self.config).await?;
        let stream = destination.dial(&self.config.dial).await?;
        self.addr = stream.peer_addr().ok().map(|a| a.ip());
        Ok(stream)
    }

    /// A name that the policy does not write out is of the command's choice, and about to leave. Very many are told.
    fn count_name(&self, shared: &Shared) {
        let Host::Name(name) = self.permit.host() else { return };
        let alarm = self.config.dns.alarm_per_minute;
        let chosen = !matches!(self.snapshot.name(name), NameVerdict::Known { literal: true });
        if chosen && shared.volume.reaches(name, alarm, Instant::now()) {
            let detail = "very many names below wildcards are looked up: data may be leaving in names";
            shared.audit.emit(record::finding(Reason::DnsVolume, detail, alarm.into()));
        }
    }

    /// Whether the policy in force still gives what this grant has. Costs one atomic load while nothing changed.
    pub(crate) fn check(&mut self) -> Result<(), Refusal> {
        if !self.policy.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let renewed = self.renew();
        if renewed.is_err() {
            // What was lost stays lost for whoever asks again.
            self.policy.mark_changed();
        }
        renewed
    }

    /// Takes the policy in force in place of the one that gave the permit.
    fn renew(&mut self) -> Result<(), Refusal> {
        let snapshot = Arc::clone(&self.policy.borrow_and_update());
        let permit = match snapshot.authorize(&self.client.asking(&self.intent, &snapshot)) {
            Verdict::Allow(permit) => permit,
            Verdict::Deny(denial) => return Err(Refusal::Stale(Box::new(denial))),
        };
        let (old, new) = (self.permit.terms(), permit.terms());
        let narrowed = (old.protocol, old.tls) != (new.protocol, new.tls);
        let moved = self.addr.is_some_and(|a| !destination::may_stay(a, &permit, &self.config));
        // Nothing that was made with the old ones may be sent any more.
        let names = &new.credentials;
        let agree = || match (&self.snapshot.credentials, &snapshot.credentials) {
            (Some(had), Some(have)) => had.agree(have, names),
            _ => false,
        };
        let redressed = old.credentials != *names || !(names.is_empty() || agree());
        if narrowed || moved || redressed {
            return Err(Refusal::Stale(Box::new(changed_terms(&permit))));
        }
        (self.permit, self.snapshot) = (permit, snapshot);
        Ok(())
    }

    /// Whether whom the grant was given to is still there and alone, where its endpoint names programs: before each
    /// request.
    pub(crate) async fn confirm(&self) -> Result<(), Refusal> {
        match &self.permit.terms().callers {
            Some(callers) => self.client.recheck(Some((&self.snapshot, callers))).await.map_err(Refusal::Identity),
            None => Ok(()),
        }
    }

    /// Waits until the policy no longer gives what this grant has, or it is not the same who has it.
    pub(crate) async fn lost(&mut self) -> Refusal {
        let (client, snapshot) = (self.client.clone(), Arc::clone(&self.snapshot));
        let callers = self.permit.terms().callers.clone();
        let changed = async {
            match &callers {
                Some(callers) => Refusal::Identity(client.lost(&snapshot, callers).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            refusal = self.withdrawn() => refusal,
            refusal = changed => refusal,
        }
    }

    async fn withdrawn(&mut self) -> Refusal {
        loop {
            if self.policy.changed().await.is_err() {
                // Nobody can change the policy any more.
                std::future::pending::<()>().await;
            }
            self.policy.mark_changed();
            if let Err(refusal) = self.check() {
                return refusal;
            }
        }
    }

    /// Says that the connection was refused or failed.
    pub(crate) fn report(&self, shared: &Shared, refusal: &Refusal) {
        shared.audit.emit(record::refusal(self.facts(), refusal));
    }
}

/// Where the policy would have to know who asks, the refusal says why that is not known.
fn denied(client: &Client, denial: Denial) -> Refusal {
    match (denial.reason, client.evidence()) {
        (Reason::IdentityUnresolved, Err(error)) => Refusal::Identity(error),
        _ => Refusal::Policy(Box::new(denial)),
    }
}

fn changed_terms(permit: &Permit) -> Denial {
    Denial {
        reason: Reason::StaleGeneration,
        rule: format!("network.endpoints.{}", permit.terms().endpoint),
        detail: "the endpoint's protocol, tls, credentials or private_addresses changed; connect again".into(),
        suggestion: None,
        generation: permit.generation(),
    }
}
