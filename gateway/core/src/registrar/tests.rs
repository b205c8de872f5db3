use super::*;
use crate::transaction::Transport;
use gateway_sip::digest::{Answering, Challenge};
use gateway_sip::sanity::{Framing, Incoming, check};
use gateway_sip::{HeaderName as H, Method};

const REALM: &str = "offhook";

struct Directory;

impl Phones for Directory {
    fn phone(&self, user: &str, from: IpAddr) -> Option<Entry> {
        let entry = |sha256| Entry {
            md5: Ha1::new(Algorithm::Md5, user, REALM, "secret"),
            sha256,
            contacts_max: 2,
        };
        match user {
            "anna" => Some(entry(Some(Ha1::new(
                Algorithm::Sha256,
                user,
                REALM,
                "secret",
            )))),
            "old" => Some(entry(None)),
            "local" if from.is_loopback() => Some(entry(None)),
            _ => None,
        }
    }
}

struct Story {
    registrar: Registrar,
    now: Instant,
    number: u32,
    last_token: u64,
}

const FROM: &str = "192.0.2.7:5060";

fn flow(remote: &str) -> Flow {
    Flow {
        transport: Transport::Tcp,
        remote: remote.parse().expect("an address"),
        socket: 3,
    }
}

impl Story {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can't be made from a number; only differences to it are seen"
    )]
    fn new() -> Self {
        let now = Instant::now();
        Self {
            registrar: Registrar::new(
                now,
                (REALM, &[Algorithm::Sha256, Algorithm::Md5]),
                &[7; 32],
                Expiry::default(),
                "offhook",
            ),
            now,
            number: 0,
            last_token: 0,
        }
    }

    fn request(&mut self, user: &str, call_id: &str, extra: &str) -> IncomingRequest {
        self.number += 1;
        let text = format!(
            "REGISTER sip:calls.test SIP/2.0\nVia: SIP/2.0/TCP 10.0.0.9;branch=z9hG4bK{0}\nFrom: <sip:{user}@calls.test>;tag=f\n\
             To: <sip:{user}@calls.test>\nCall-ID: {call_id}\nCSeq: {0} REGISTER\nUser-Agent: desk\n{extra}\n",
            self.number
        );
        read(&text)
    }

    /// Registers without a proof: that has stories of its own. The answer's code, then its Contacts, each with what it has left.
    fn register(&mut self, user: &str, extra: &str) -> String {
        self.register_by(flow(FROM), user, "c1", extra)
    }

    fn register_by(&mut self, flow: Flow, user: &str, call_id: &str, extra: &str) -> String {
        let incoming = self.request(user, call_id, extra);
        self.take(flow, user, &incoming)
    }

    fn take(&mut self, flow: Flow, user: &str, incoming: &IncomingRequest) -> String {
        let entry = Directory
            .phone("anna", flow.remote.ip())
            .expect("she is there");
        let Registered { response, change } =
            self.registrar
                .register(self.now, flow, incoming, (user, &entry), &mut || 1);
        let mut out = response.code.to_string();
        for header in [H::MinExpires, H::RetryAfter, H::Path, H::Contact] {
            for line in response.headers.lines(&header) {
                out.push(' ');
                out.push_str(line);
            }
        }
        match change {
            Some(Change::Came { .. }) => out + " came",
            Some(Change::Went { .. }) => out + " went",
            None => out,
        }
    }

    fn wait(&mut self, seconds: u64) -> usize {
        self.now += Duration::from_secs(seconds);
        self.registrar.handle_timeout(self.now).len()
    }

    fn prove(&mut self, from: &str, incoming: &IncomingRequest) -> Result<String, Challenged> {
        self.last_token += 1;
        let token = self.last_token;
        let from = from.parse().expect("an address");
        self.registrar
            .authenticate(self.now, from, incoming, &Directory, &mut || token)
            .map(|(user, _)| user)
    }

    /// Asks, answers the first challenge of these hashes, and asks again.
    fn prove_with(
        &mut self,
        from: &str,
        user: &str,
        password: &str,
        algorithm: Algorithm,
    ) -> Result<String, Challenged> {
        let mut incoming = self.request(user, "c1", "Contact: <sip:x@h>\n");
        let challenged = self
            .prove(from, &incoming)
            .expect_err("it has no credentials");
        assert_eq!(challenged.why, Unproven::Missing);
        let mut challenges = challenges(&challenged.response);
        challenges.retain(|challenge| challenge.algorithm == algorithm);
        let challenge = challenges.pop().expect("both are offered");
        Answering::new(challenge, user, password).authorize(&mut incoming.request, 9);
        self.prove(from, &incoming)
    }
}

fn challenges(response: &Response) -> Vec<Challenge> {
    let lines = response.headers.lines(&H::WwwAuthenticate);
    lines
        .filter_map(|line| Challenge::parse(line, false).expect("we write it"))
        .collect()
}

fn read(text: &str) -> IncomingRequest {
    let text = text.replace('\n', "\r\n");
    match check(text.as_bytes(), Framing::Datagram, "t") {
        Ok(Incoming::Request(incoming)) => *incoming,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_phone_comes_renews_and_goes() {
    let mut t = Story::new();
    assert_eq!(
        t.register("anna", "Contact: <sip:anna@10.0.0.9>\nExpires: 120\n"),
        "200 <sip:anna@10.0.0.9>;expires=120 came"
    );
    assert_eq!(t.wait(100), 0);
    assert_eq!(
        t.register("anna", ""),
        "200 <sip:anna@10.0.0.9>;expires=20",
        "who only asks changes nothing"
    );
    assert_eq!(
        t.register(
            "anna",
            "Contact: <sip:anna@10.0.0.9>;expires=60\nExpires: 999\n"
        ),
        "200 <sip:anna@10.0.0.9>;expires=60"
    );
    let binding = t.registrar.bindings("anna").next().expect("she is there");
    assert_eq!(
        (binding.flow, binding.behind_nat, binding.agent.as_deref()),
        (flow(FROM), true, Some("desk"))
    );
    assert!(t.registrar.is_known(&flow(FROM)));
    assert_eq!(
        t.register("anna", "Contact: <sip:anna@10.0.0.9>;expires=0\n"),
        "200 went"
    );
    assert!(!t.registrar.is_known(&flow(FROM)) && t.registrar.is_empty());
    assert_eq!(t.registrar.poll_timeout(), None);
}

#[test]
fn what_is_not_renewed_ends() {
    let mut t = Story::new();
    t.register("anna", "Contact: <sip:a@10.0.0.9>;expires=60\n");
    t.register("anna", "Contact: <sip:a@10.0.0.8>;expires=90\n");
    assert_eq!(t.wait(59), 0);
    assert_eq!(t.wait(1), 0, "the other one is still there");
    assert_eq!(t.register("anna", ""), "200 <sip:a@10.0.0.8>;expires=30");
    assert_eq!(t.wait(30), 1);
    assert!(t.registrar.is_empty());
}

#[test]
fn times_are_within_their_bounds() {
    let mut t = Story::new();
    for (extra, expected) in [
        ("Contact: <sip:a@h>\n", "200 <sip:a@h>;expires=600 came"),
        (
            "Contact: <sip:a@h>\nExpires: 86400\n",
            "200 <sip:a@h>;expires=3600",
        ),
        ("Contact: <sip:a@h>\nExpires: 30\n", "423 60"),
        ("Contact: <sip:a@h>;expires=59\n", "423 60"),
        (
            "Contact: <sip:a@h>;expires=60\n",
            "200 <sip:a@h>;expires=60",
        ),
    ] {
        assert_eq!(t.register("anna", extra), expected, "{extra}");
    }
}

#[test]
fn all_are_taken_back_by_a_star() {
    let mut t = Story::new();
    for (extra, expected) in [
        (
            "Contact: <sip:a@h>, <sip:b@h>\n",
            "200 <sip:b@h>;expires=600 <sip:a@h>;expires=600 came",
        ),
        ("Contact: *\n", "400"),
        ("Contact: *\nExpires: 5\n", "400"),
        ("Contact: *\nContact: <sip:a@h>\nExpires: 0\n", "400"),
        ("Contact: *\nExpires: 0\n", "200 went"),
        ("Contact: *\nExpires: 0\n", "200"),
    ] {
        // A star beside others is refused before it gets here, too.
        let mut incoming = t.request(
            "anna",
            "c1",
            &extra.replacen("Contact: *\nContact", "Contact", 1),
        );
        if extra.starts_with("Contact: *\nContact") {
            incoming.request.headers.push(H::Contact, "*");
        }
        assert_eq!(t.take(flow(FROM), "anna", &incoming), expected, "{extra}");
    }
}

#[test]
fn what_was_overtaken_changes_nothing() {
    let mut t = Story::new();
    let late = t.request("anna", "c1", "Contact: <sip:a@h>;expires=0\n");
    let star = t.request("anna", "c1", "Contact: *\nExpires: 0\n");
    t.register("anna", "Contact: <sip:a@h>\n");
    assert_eq!(t.take(flow(FROM), "anna", &late), "500");
    assert_eq!(t.take(flow(FROM), "anna", &star), "500");
    // A phone that began anew has another Call-ID, and numbers of its own.
    t.number = 0;
    assert_eq!(
        t.register_by(flow(FROM), "anna", "c2", "Contact: <sip:a@h>;expires=0\n"),
        "200 went"
    );
}

#[test]
fn an_instance_has_one_binding_wherever_it_is() {
    let mut t = Story::new();
    let instance = ";+sip.instance=\"<urn:uuid:1>\"";
    let at = |host: &str| format!("Contact: <sip:a@{host}>{instance}\n");
    t.register("anna", &at("10.0.0.1"));
    assert_eq!(
        t.register_by(flow("192.0.2.8:9"), "anna", "c9", &at("10.0.0.2")),
        "200 <sip:a@10.0.0.2>;expires=600;+sip.instance=\"<urn:uuid:1>\""
    );
    assert!(!t.registrar.is_known(&flow(FROM)));
}

#[test]
fn another_contact_takes_the_place_of_the_oldest() {
    let mut t = Story::new();
    for host in ["a", "b", "c"] {
        t.register("anna", &format!("Contact: <sip:{host}>\n"));
    }
    assert_eq!(
        t.register("anna", ""),
        "200 <sip:c>;expires=600 <sip:b>;expires=600"
    );
    let mut t = Story::new();
    t.registrar = t.registrar.with_limit(1);
    t.register("anna", "Contact: <sip:a@h>\n");
    assert_eq!(t.register("old", "Contact: <sip:b@h>\n"), "503 60");
    assert_eq!(
        t.register("anna", "Contact: <sip:a@h>\n"),
        "200 <sip:a@h>;expires=600"
    );
    let many = (0..=CONTACTS_MAX).map(|n| format!("<sip:{n}@h>"));
    let many = many.collect::<Vec<_>>().join(",");
    assert_eq!(t.register("anna", &format!("Contact: {many}\n")), "400");
}

#[test]
fn the_most_wanted_comes_first_and_paths_are_kept() {
    let mut t = Story::new();
    t.register("anna", "Contact: <sip:a@h>;q=0.9\n");
    let path = "Path: <sip:edge;lr>\n";
    assert_eq!(
        t.register("anna", &format!("{path}Contact: <sip:b@h>;q=0.25\n")),
        "200 <sip:edge;lr> <sip:a@h>;expires=600 <sip:b@h>;expires=600"
    );
    let all: Vec<_> = t.registrar.bindings("anna").collect();
    assert_eq!(
        (all[0].preference, all[1].preference, all[1].path.len()),
        (900, 250, 1)
    );
    let long = "Path: <sip:p>\n".repeat(ROUTES_MAX + 1);
    assert_eq!(
        t.register("anna", &format!("{long}Contact: <sip:b@h>\n")),
        "400"
    );
}

#[test]
fn nobody_registers_for_somebody_else_or_elsewhere() {
    let mut t = Story::new();
    let incoming = t.request("bert", "c1", "Contact: <sip:a@h>\n");
    assert_eq!(t.take(flow(FROM), "anna", &incoming), "403");
    assert_eq!(t.register("anna", "Contact: <tel:+4930123456>\n"), "400");
    assert!(t.registrar.is_empty());
}

#[test]
fn a_broken_connection_takes_its_bindings_along() {
    let mut t = Story::new();
    t.register("anna", "Contact: <sip:a@h>\n");
    t.register_by(flow("192.0.2.8:9"), "anna", "c2", "Contact: <sip:b@h>\n");
    assert_eq!(t.registrar.handle_broken(&flow(FROM)), []);
    let went = [Change::Went {
        user: "anna".into(),
    }];
    assert_eq!(t.registrar.handle_broken(&flow("192.0.2.8:9")), went);
    t.register("anna", "Contact: <sip:a@h>\n");
    assert_eq!(t.registrar.forget("anna").as_slice(), went);
    assert_eq!(t.registrar.forget("anna"), None);
}

#[test]
fn a_phone_is_known_by_its_digest_and_nobody_learns_who_there_is() {
    let mut t = Story::new();
    let from = "192.0.2.7";
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        assert_eq!(
            t.prove_with(from, "anna", "secret", algorithm),
            Ok("anna".to_owned())
        );
    }
    // A wrong password, a user there is not, one that may not come from there and one without that hash all look the same.
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        let mut answers = Vec::new();
        for (user, password) in [("anna", "wrong"), ("nobody", "secret"), ("local", "secret")] {
            let challenged = t
                .prove_with(from, user, password, algorithm)
                .expect_err("it is wrong");
            assert_eq!(challenged.why, Unproven::Wrong, "{user}");
            assert!(challenged.why.is_guess());
            let offered: Vec<_> = challenges(&challenged.response)
                .iter()
                .map(|challenge| (challenge.algorithm, challenge.stale))
                .collect();
            answers.push((challenged.response.code, offered));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    assert_eq!(
        t.prove_with("127.0.0.1", "local", "secret", Algorithm::Md5),
        Ok("local".to_owned())
    );
    // A phone of which only an MD5 is known gets there in its second try.
    let challenged = t
        .prove_with(from, "old", "secret", Algorithm::Sha256)
        .expect_err("that hash is not known");
    let next = challenges(&challenged.response);
    assert_eq!(
        next.iter().map(|next| next.algorithm).collect::<Vec<_>>(),
        [Algorithm::Md5]
    );
    let mut incoming = t.request("old", "c1", "");
    Answering::new(next[0].clone(), "old", "secret").authorize(&mut incoming.request, 1);
    assert_eq!(t.prove(from, &incoming), Ok("old".to_owned()));
    // What was heard on the way is of no use to anybody else.
    let again = t.prove(from, &incoming).expect_err("it was used");
    assert_eq!(again.why, Unproven::Stale);
    assert!(challenges(&again.response)[0].stale);
    incoming.request.method = Method::Invite;
    assert_eq!(
        t.prove(from, &incoming).expect_err("for REGISTER").why,
        Unproven::Wrong
    );
    incoming.request.headers.set(H::Authorization, "Digest x");
    let challenged = t.prove(from, &incoming).expect_err("no digest");
    assert_eq!(
        (challenged.response.code, challenged.why),
        (StatusCode::BAD_REQUEST, Unproven::Malformed)
    );
}
