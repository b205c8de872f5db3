//! Figures for the operator. No label names a person or an Account.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use model::{CallRecord, EndReason};
use signaling_core::Counts;
use signaling_wire::{CloseCode, ErrorCode};

/// Handles to the figures: looked up once, for a look-up costs more than a count.
pub(crate) struct Figures {
    connections: Gauge,
    frames_in: Counter,
    frames_out: Counter,
    resumes_ok: Counter,
    resumes_failed: Counter,
    call_setup: Histogram,
}

/// An open WebSocket, until it is dropped.
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Figures {
    pub(crate) fn new() -> Self {
        describe();

        Self {
            connections: gauge!("signaling_connections"),
            frames_in: counter!("signaling_frames_total", "direction" => "in"),
            frames_out: counter!("signaling_frames_total", "direction" => "out"),
            resumes_ok: counter!("signaling_resumes_total", "result" => "ok"),
            resumes_failed: counter!("signaling_resumes_total", "result" => "failed"),
            call_setup: histogram!("signaling_call_setup_seconds"),
        }
    }

    pub(crate) fn connected(&self) -> Connected {
        self.connections.increment(1);
        Connected(self.connections.clone())
    }

    pub(crate) fn frames(&self, received: u64, sent: u64) {
        self.frames_in.increment(received);
        self.frames_out.increment(sent);
    }

    pub(crate) fn resumed(&self, ok: bool) {
        let resumes = if ok {
            &self.resumes_ok
        } else {
            &self.resumes_failed
        };
        resumes.increment(1);
    }

    pub(crate) fn hello_refused(&self, code: ErrorCode) {
        counter!("signaling_hello_refused_total", "code" => code.as_str()).increment(1);
    }

    /// A WebSocket was refused before there was one.
    pub(crate) fn upgrade_refused(&self, code: ErrorCode) {
        counter!("signaling_upgrades_refused_total", "code" => code.as_str()).increment(1);
    }

    /// A session of WHIP or WHEP began.
    pub(crate) fn http_session_began(&self, protocol: &'static str) {
        counter!("signaling_http_sessions_total", "protocol" => protocol).increment(1);
    }

    /// A request of WHIP or WHEP was refused.
    pub(crate) fn http_session_refused(&self, code: &'static str) {
        counter!("signaling_http_requests_refused_total", "code" => code).increment(1);
    }

    /// An `error` was sent in a Session.
    pub(crate) fn command_refused(&self, code: ErrorCode) {
        counter!("signaling_commands_refused_total", "code" => code.as_str()).increment(1);
    }

    /// We closed a WebSocket.
    pub(crate) fn closed(&self, code: CloseCode) {
        counter!("signaling_closes_total", "code" => code.as_u16().to_string()).increment(1);
    }

    pub(crate) fn call_answered(&self, call: &CallRecord) {
        if let Some(answered_at) = call.answered_at {
            let setup = Duration::from_millis((answered_at - call.created_at).get());
            self.call_setup.record(setup);
        }
    }

    pub(crate) fn call_ended(&self, call: &CallRecord) {
        let reason = call.reason.map_or("unknown", reason_label);
        counter!("signaling_calls_ended_total", "reason" => reason).increment(1);
    }

    /// Tells what a shard holds; `shard` is its number.
    pub(crate) fn held(&self, shard: usize, counts: &Counts) {
        let shard = shard.to_string();
        let set = |name: &'static str, state: &'static str, count: usize| {
            gauge!(name, "shard" => shard.clone(), "state" => state).set(count as f64);
        };

        gauge!("signaling_accounts", "shard" => shard.clone()).set(counts.accounts as f64);
        set("signaling_sessions", "connected", counts.sessions_connected);
        set("signaling_sessions", "detached", counts.sessions_detached);
        set("signaling_calls", "ringing", counts.calls_ringing);
        set("signaling_calls", "active", counts.calls_active);
        set("signaling_calls", "ended", counts.calls_ended);
        gauge!("signaling_phone_calls", "shard" => shard.clone()).set(counts.phone_calls as f64);
        gauge!("signaling_rooms", "shard" => shard.clone()).set(counts.rooms as f64);
        set("signaling_room_people", "inside", counts.participants);
        set("signaling_room_people", "waiting", counts.waiting);
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_gauge!("signaling_connections", "open WebSockets");
    describe_gauge!("signaling_accounts", "Accounts with something going on");
    describe_gauge!(
        "signaling_sessions",
        "Sessions with and without a WebSocket"
    );
    describe_gauge!(
        "signaling_calls",
        "Calls that ring, go on, or ended a moment ago"
    );
    describe_gauge!("signaling_phone_calls", "phone calls, in both directions");
    describe_gauge!(
        "signaling_rooms",
        "Rooms, with those empty for less than a minute"
    );
    describe_gauge!(
        "signaling_room_people",
        "Participants of Rooms, and people in their lobbies"
    );
    describe_counter!("signaling_frames_total", "frames from and to clients");
    describe_counter!("signaling_resumes_total", "attempts to resume a Session");
    describe_counter!(
        "signaling_hello_refused_total",
        "refused attempts to begin or resume a Session"
    );
    describe_counter!(
        "signaling_upgrades_refused_total",
        "WebSockets refused for their origin, their address, or a restart"
    );
    describe_counter!(
        "signaling_http_sessions_total",
        "encoders (whip) and viewers (whep) that came into a Room"
    );
    describe_counter!(
        "signaling_http_requests_refused_total",
        "requests of WHIP and WHEP answered with a problem"
    );
    describe_counter!(
        "signaling_commands_refused_total",
        "commands and frames of Sessions answered with an error"
    );
    describe_counter!(
        "signaling_closes_total",
        "WebSockets closed by the server, by the code in the close frame"
    );
    describe_counter!(
        "signaling_calls_ended_total",
        "Calls by the reason they ended for"
    );
    describe_histogram!("signaling_call_setup_seconds", "from invite to answer");
}

const fn reason_label(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Hangup => "hangup",
        EndReason::Declined => "declined",
        EndReason::Busy => "busy",
        EndReason::Cancelled => "cancelled",
        EndReason::Missed => "missed",
        EndReason::Unavailable => "unavailable",
        EndReason::Failed => "failed",
        EndReason::Transferred => "transferred",
        EndReason::Merged => "merged",
        EndReason::Upgraded => "upgraded",
        EndReason::Gone => "gone",
        EndReason::AnsweredElsewhere => "answered_elsewhere",
    }
}
