use super::*;

fn rows() -> Telephony {
    let text = r#"{
        "dialling": {"country": "49"},
        "trunks": {
            "cheap": {"targets": ["sip:cheap.example"], "destinations": {"allow": ["+49", "+4930"], "deny": ["+49900"], "short": ["116117"]}},
            "main": {"targets": ["sip:main.example"], "destinations": {"allow": ["+49", "+1"]}},
            "off": {"enabled": false, "targets": ["sip:off.example"], "destinations": {"allow": ["+"]}},
            "inward": {"networks": ["192.0.2.0/24"], "destinations": {"allow": ["+"]}}
        },
        "numbers": {
            "+4940100000": {"to": "busy", "trunk": "main"},
            "42": {"to": "busy"}
        },
        "users": {
            "anna": {"number": "+4940100000"},
            "bert": {"destinations": {"allow": ["+4930"]}}
        },
        "emergency": {"routes": {
            "112": {"trunks": ["off", "main"], "number": "+4940100000"}, "110": {"trunks": ["main"], "dial": "110001"},
            "117": {"trunks": ["off"]}}, "refused": ["911"], "refusal": "no-help"}
    }"#;
    serde_json::from_str(text).expect("rows")
}

/// `in 42`, `out NUMBER by TRUNKS`, or why not.
fn dial(rows: &Telephony, user: &str, dialled: &str) -> String {
    let user: UserId = user.parse().expect("a user");
    match plan(rows, Some(&user), dialled) {
        Ok(Plan::Inside(line)) => format!("in {line}"),
        Ok(Plan::Outside(outside)) => {
            let names: Vec<_> = outside.trunks.iter().map(RowName::as_str).collect();
            let number = match &outside.number {
                Dialled::World(number) => number.to_string(),
                Dialled::AsIs(text) => text.clone(),
            };
            let help = if outside.help { " for help" } else { "" };
            let shown = outside
                .shown
                .map_or(String::new(), |shown| format!(" as {shown}"));
            format!("out {number} by {}{help}{shown}", names.join(" "))
        }
        Err(Denied::Help(words)) => format!("help {}", words.expect("they are told")),
        Err(denied) => denied.as_str().to_owned(),
    }
}

#[test]
fn nothing_is_called_that_no_row_allows() {
    let rows = rows();
    for (user, dialled, expected) in [
        ("carl", "42", "in 42"),
        ("carl", "040 100000", "in +4940100000"),
        ("carl", "43", "no_number"),
        ("carl", "alice", "no_number"),
        // The longest beginning first, then by name.
        ("carl", "030 123456", "out +4930123456 by cheap main"),
        ("carl", "+49 40 123456", "out +4940123456 by cheap main"),
        ("carl", "0049900123456", "out +49900123456 by main"),
        ("carl", "+12125550100", "out +12125550100 by main"),
        ("carl", "+33123456789", "destination"),
        ("carl", "116117", "out 116117 by cheap"),
        // The number that is shown is one of main's.
        ("anna", "030 123456", "out +4930123456 by main cheap"),
        ("bert", "030 123456", "out +4930123456 by cheap main"),
        ("bert", "040 123456", "user"),
        ("bert", "116117", "user"),
        ("bert", "+12125550100", "user"),
    ] {
        assert_eq!(dial(&rows, user, dialled), expected, "{user} {dialled}");
    }
    let mut rows = rows;
    rows.trunks
        .retain(|_, trunk| !trunk.enabled || trunk.targets.is_empty());
    assert_eq!(dial(&rows, "carl", "030123456"), "no_trunk");
}

#[test]
fn help_goes_by_its_table_or_is_refused() {
    let rows = rows();
    for (dialled, expected) in [
        ("112", "out 112 by main for help as +4940100000"),
        ("1-1-0", "out 110001 by main for help"),
        ("117", "help no-help"),
        ("911", "help no-help"),
        ("999", "help no-help"),
    ] {
        // Neither a User's destinations nor the Trunk's are asked.
        assert_eq!(dial(&rows, "bert", dialled), expected, "{dialled}");
    }
}

#[test]
fn the_next_is_tried_when_one_can_t_and_not_when_it_won_t() {
    let ended = |code, why| Ended {
        code: StatusCode::new(code).expect("a code"),
        cause: None,
        why,
    };
    for (code, why, rang, expected) in [
        (503, Why::Remote, false, true),
        (503, Why::Remote, true, false),
        (500, Why::Remote, false, true),
        (408, Why::Vanished, false, true),
        (503, Why::Vanished, false, true),
        (404, Why::Remote, false, false),
        (486, Why::Remote, false, false),
        (603, Why::Remote, false, false),
        (403, Why::Remote, false, false),
        (487, Why::Local, false, false),
        (488, Why::Media, false, false),
    ] {
        assert_eq!(
            goes_on(&ended(code, why), rang),
            expected,
            "{code} {why:?} {rang}"
        );
    }
}

#[test]
fn numbers_are_written_as_the_trunk_reads_them() {
    let rows = rows();
    let check = |format: &str, number: &str, expected: &str| {
        let trunk: Trunk =
            serde_json::from_str(&format!("{{\"number_format\": \"{format}\"}}")).expect("a row");
        let number = Dialled::World(number.parse().expect("a number"));
        assert_eq!(written(&number, &trunk, rows.dialling.as_ref()), expected);
    };
    check("plus", "+4930123456", "+4930123456");
    check("digits", "+4930123456", "4930123456");
    check("international", "+4930123456", "004930123456");
    check("national", "+4930123456", "030123456");
    check("national", "+12125550100", "0012125550100");
    let help = Dialled::AsIs("112".into());
    assert_eq!(written(&help, &Trunk::default(), None), "112");
}

/// From, then every header.
fn shown(trunk: &str, caller: &Caller) -> Vec<String> {
    let trunk: Trunk = serde_json::from_str(trunk).expect("a row");
    match identity(&trunk, caller, &Host::Name("own.example".into())) {
        Ok((from, headers)) => {
            let line = |(name, value): (&HeaderName, &str)| format!("{name}: {value}");
            let lines = headers.iter().map(line);
            [from.to_string()].into_iter().chain(lines).collect()
        }
        Err(Withheld) => vec!["withheld".into()],
    }
}

#[test]
fn who_calls_is_said_as_the_trunk_s_row_has_it() {
    let anna = Caller {
        number: Some("+4930111111".parse().expect("a number")),
        name: Some("Anna".into()),
        ..Caller::default()
    };
    let check = |trunk: &str, caller: &Caller, expected: &[&str]| {
        assert_eq!(shown(trunk, caller), expected, "{trunk}");
    };
    check(
        "{}",
        &anna,
        &[
            "\"Anna\" <sip:+4930111111@own.example>",
            "P-Asserted-Identity: \"Anna\" <sip:+4930111111@own.example>",
        ],
    );
    check(
        r#"{"caller": {"asserted": false, "name": "Company", "from_domain": "p.example"}}"#,
        &anna,
        &["\"Company\" <sip:+4930111111@p.example>"],
    );
    let registered =
        r#"{"peering": {"registration": {"user": "u17"}}, "targets": ["sip:reg.example"]}"#;
    check(registered, &Caller::default(), &["<sip:u17@reg.example>"]);
    check(
        r#"{"caller": {"number": "+4930000000"}, "quirks": ["remote_party_id"]}"#,
        &Caller::default(),
        &[
            "<sip:+4930000000@own.example>",
            "P-Asserted-Identity: <sip:+4930000000@own.example>",
            "Remote-Party-ID: <sip:+4930000000@own.example>;party=calling;screen=yes;privacy=off",
        ],
    );
}

#[test]
fn a_number_that_is_withheld_stands_where_it_is_kept_and_nowhere_else() {
    let hidden = Caller {
        number: Some("+4930111111".parse().expect("a number")),
        name: Some("Anna".into()),
        withheld: true,
        ..Caller::default()
    };
    let anonymous = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";
    assert_eq!(
        shown("{}", &hidden),
        [
            anonymous,
            "P-Asserted-Identity: \"Anna\" <sip:+4930111111@own.example>",
            "Privacy: id"
        ]
    );
    let row = r#"{"caller": {"privacy": "anonymous"}, "quirks": ["remote_party_id"]}"#;
    assert_eq!(shown(row, &hidden), [anonymous]);
    let row = r#"{"caller": {"privacy": "refused"}}"#;
    assert_eq!(shown(row, &hidden), ["withheld"]);
}

#[test]
fn a_call_that_was_sent_on_says_by_whom() {
    let sent_on = Caller {
        diverted: Some(("+4930222222".parse().expect("a number"), Diverted::NoAnswer)),
        ..Caller::default()
    };
    let last = |diversion: &str| {
        let row = format!("{{\"caller\": {{\"diversion\": \"{diversion}\"}}}}");
        shown(&row, &sent_on).split_off(1)
    };
    assert_eq!(
        last("diversion"),
        ["Diversion: <sip:+4930222222@own.example>;reason=no-answer;counter=1"]
    );
    assert_eq!(
        last("history_info"),
        ["History-Info: <sip:+4930222222@own.example?Reason=SIP%3Bcause%3D408>;index=1"]
    );
    assert_eq!(last("off"), [""; 0]);
}

#[test]
fn quirks_of_a_row_are_those_of_its_legs() {
    let trunk: Trunk =
        serde_json::from_str(r#"{"quirks": ["no_update", "no_refer"]}"#).expect("a row");
    let expected = Quirks {
        no_update: true,
        no_refer: true,
        ..Quirks::default()
    };
    assert_eq!(quirks(&trunk), expected);
}
