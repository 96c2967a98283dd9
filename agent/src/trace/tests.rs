use super::*;

fn all(text: &str, format: Option<Format>, ports: &[u16]) -> (Vec<Sighting>, Result<Tally, String>) {
    let mut trace = Trace::new("t", text.as_bytes(), format, ports);
    let mut found = Vec::new();
    loop {
        match trace.next() {
            Ok(Some(sighting)) => found.push(sighting),
            Ok(None) => return (found, Ok(trace.tally().clone())),
            Err(error) => return (found, Err(error.to_string())),
        }
    }
}

fn ends(found: &[Sighting]) -> Vec<(i64, String, String)> {
    let end = |sighting: &Sighting| {
        let from = sighting.source.address().map(|address| address.to_string()).unwrap_or_default();
        (sighting.observation.time, from, sighting.observation.address.to_string())
    };
    found.iter().map(end).collect()
}

fn attempt() -> Attempt {
    Attempt {
        time: "2026-11-24T10:00:00Z".parse().unwrap(),
        verdict: "deny".into(),
        reason: "no-rule".into(),
        hook: "connect4".into(),
        destination: Some("192.0.2.25:25".parse().unwrap()),
        pid: 7,
        exe: Some("/tmp/x".into()),
        ..Attempt::default()
    }
}

const TSV: &str = "#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#open\t2026-11-24-10-00-00
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\tconn_state\tlocal_orig
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tstring\tbool
1795514400.000001\tC1\t10.0.0.7\t4711\t192.0.2.25\t25\ttcp\t-\t-\tS0\t-
1795514401.000000\tC2\t10.0.0.7\t4712\t192.0.2.26\t443\ttcp\tssl\t1.0\tSF\tT
1795514401.500000\tC3\t10.0.0.7\t5353\t192.0.2.26\t25\tudp\t-\t-\tS0\tT
#close\t2026-11-24-11-00-00
";

#[test]
fn zeek_by_tabs_with_columns_in_any_order_and_headers_in_between() {
    let second = "#separator \\x7c\n#path|conn\n#fields|proto|id.resp_p|id.resp_h|id.orig_h|ts|label\n\
                  tcp|25|2001:db8::25|2001:db8::7|1795514402.5|Malicious\n";
    let (found, tally) = all(&format!("{TSV}{second}"), None, &[]);
    let expected = [
        (1_795_514_400_000_001, "10.0.0.7".into(), "192.0.2.25".into()),
        (1_795_514_402_500_000, "2001:db8::7".into(), "2001:db8::25".into()),
    ];
    assert_eq!(ends(&found), expected);
    assert_eq!(found.iter().map(|one| one.label.as_deref()).collect::<Vec<_>>(), [None, Some("Malicious")]);
    assert_eq!(found[0].observation.outcome, Outcome::Refused);
    let tally = tally.unwrap();
    assert_eq!((tally.attempts, tally.elsewhere, tally.unreadable), (2, 2, 0));
}

#[test]
fn zeek_as_json_with_both_kinds_of_times() {
    let line = |ts: &str, proto: &str, port: u16| {
        format!(
            "{{\"ts\":{ts},\"uid\":\"C\",\"id.orig_h\":\"10.0.0.7\",\"id.orig_p\":1,\"id.resp_h\":\"192.0.2.25\",\
             \"id.resp_p\":{port},\"proto\":\"{proto}\",\"conn_state\":\"S0\",\"local_orig\":false}}\n"
        )
    };
    let text = [
        line("1795514400.000001", "tcp", 25),
        line("\"2026-11-24T10:00:00.000001Z\"", "tcp", 587),
        line("1795514400000.001", "tcp", 25),
        line("1795514400.000001", "udp", 25),
        line("1795514400.000001", "tcp", 26),
        line("\"never\"", "tcp", 25),
    ];
    let (found, tally) = all(&text.concat(), None, &[25, 587]);
    assert_eq!(found.iter().map(|one| one.observation.time).collect::<Vec<_>>(), [1_795_514_400_000_001; 3]);
    let tally = tally.unwrap();
    assert_eq!((tally.elsewhere, tally.unreadable), (2, 1));
    assert_eq!(tally.faults, ["t:6: \"ts\" is no time"]);
}

#[test]
fn argus_flows_of_ctu_13() {
    let text = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes,Label\n\
        2011/08/10 09:46:53.047277,3550.2,tcp,147.32.84.165,1025,   ->,212.117.171.138,25,S_RA,0,0,4,276,156,flow=From-Botnet-V42-TCP-Attempt-SPAM\n\
        2011/08/10 09:46:54.000000,1,tcp,74.125.1.27,25,   <-,147.32.84.165,1026,SA,0,0,4,276,156,\n\
        2011/08/10 09:46:55.000000,1,tcp,74.125.1.28,25,  <?>,147.32.84.165,1027,PA_PA,0,0,4,276,156,x\n\
        2011/08/10 09:46:56.000000,1,tcp,147.32.84.165,1028,  <?>,74.125.1.29,0x0019,PA_PA,0,0,4,276,156,x\n\
        2011/08/10 09:46:57.000000,1,tcp,147.32.84.165,1028,  <->,74.125.1.30,smtp,PA_PA,0,0,4,276,156,x\n\
        2011/08/10 09:46:58.000000,1,icmp,147.32.84.165,0x0008,  ->,74.125.1.30,,URP,0,0,4,276,156,x\n\
        2011/08/10 09:46:59.000000,1,tcp,147.32.84.165,1030,  ->,74.125.1.31,80,S_,0,0,4,276,156,x\n\
        2011/08/10 09:47:00.000000,1,udp,147.32.84.165,1030,  <->,74.125.1.31,25,CON,0,0,4,276,156,x\n\
        2011/08/10 09:47:01,1,tcp,here,1,  ->,74.125.1.31,25,S_,0,0,4,276,156,x\n\
        2011/08/10\n";
    let (found, tally) = all(text, None, &[]);
    let to = ["212.117.171.138", "74.125.1.27", "74.125.1.28", "74.125.1.29", "74.125.1.30"];
    assert_eq!(ends(&found).iter().map(|one| one.2.as_str()).collect::<Vec<_>>(), to);
    assert!(ends(&found).iter().all(|one| one.1 == "147.32.84.165"));
    assert_eq!(found[0].label.as_deref(), Some("flow=From-Botnet-V42-TCP-Attempt-SPAM"));
    assert_eq!(found[1].label, None);
    let tally = tally.unwrap();
    assert_eq!((tally.elsewhere, tally.unreadable), (3, 2));
    assert_eq!(tally.faults[0], "t:10: these are no two addresses: here, 74.125.1.31");
}

#[test]
fn argus_with_other_columns_and_quotes() {
    let text = "\u{feff}Label,DstAddr,Dport,SrcAddr,Proto,StartTime\n\"a,b\",192.0.2.25,25,10.0.0.7,tcp,1795514400.5\n";
    let (found, tally) = all(text, None, &[]);
    assert_eq!(ends(&found), [(1_795_514_400_500_000, "10.0.0.7".into(), "192.0.2.25".into())]);
    assert_eq!(found[0].label.as_deref(), Some("a,b"));
    assert_eq!(tally.unwrap().lines, 2);
    let missing = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr\n";
    assert!(all(missing, None, &[]).1.unwrap_err().starts_with("t:1: the header has no column Dport"));
}

#[test]
fn attempts_with_notes_faults_and_labels_between() {
    let good = serde_json::to_string(&attempt()).unwrap();
    let labelled = good.replacen('{', "{\"label\":\"bot\",", 1);
    let elsewhere = serde_json::to_string(&Attempt { destination: None, ..attempt() }).unwrap();
    let text =
        format!("{good}\n{{\"lost\":41}}\n\n{labelled}\n{{\"verdict\":\"deny\"}}\n{elsewhere}\nnoise\n{{\"a\":1}}\n");
    let (found, tally) = all(&text, None, &[]);
    assert_eq!(found.iter().map(|one| one.label.as_deref()).collect::<Vec<_>>(), [None, Some("bot")]);
    assert_eq!(found[0].source.who().name, "/tmp/x as uid 0");
    let tally = tally.unwrap();
    assert_eq!((tally.lines, tally.attempts, tally.lost, tally.others, tally.unreadable), (8, 2, 41, 4, 2));
    assert!(tally.faults[0].starts_with("t:5: this is no attempt: missing field"), "{:?}", tally.faults);
    assert!(tally.faults[1].starts_with("t:7: "), "{:?}", tally.faults);
    // Guarded ports are the policy's, so all count until somebody asks for less.
    assert_eq!(all(&good, None, &[587]).1.unwrap().elsewhere, 1);
}

#[test]
fn what_is_no_trace_is_said_so_with_file_and_line() {
    assert!(all("\n\x1f\u{8b}", None, &[]).1.unwrap_err().starts_with("t:2: this is neither an attempt"));
    assert!(all("{\"a\":1}\n", None, &[]).1.unwrap_err().starts_with("t:1: this is neither"));
    assert!(all("a b c\n", Some(Format::Attempts), &[]).1.unwrap_err().contains("t:1: this is no attempt"));
    assert!(all("1 2\n", Some(Format::Zeek), &[]).1.unwrap_err().contains("t:1: no #fields line"));
    let no_port = "#separator \\x09\n#fields\tts\tid.orig_h\n";
    assert!(all(no_port, None, &[]).1.unwrap_err().starts_with("t:2: the header has no column id.resp_h"));
    assert_eq!(all("", None, &[]), (vec![], Ok(Tally::default())));
}

#[test]
fn a_file_that_breaks_off_says_where() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no more disk"))
        }
    }
    let good = serde_json::to_string(&attempt()).unwrap() + "\n";
    let input = io::BufReader::new(io::Read::chain(good.as_bytes(), Broken));
    let mut trace = Trace::new("t", input, None, &[]);
    assert!(trace.next().unwrap().is_some());
    assert_eq!(trace.next().unwrap_err().to_string(), "t:1: cannot read it: no more disk");
}

#[test]
fn other_logs_of_zeek_are_passed_over() {
    let dns = "#separator \\x09\n#path\tdns\n#fields\tts\tquery\n1.0\texample.org\n";
    let (found, tally) = all(&format!("{dns}{TSV}"), None, &[]);
    assert_eq!((found.len(), tally.unwrap().unreadable), (1, 0));
}

#[test]
fn what_is_wrong_with_a_line_can_be_shown_in_a_terminal() {
    let long = "\u{1b}[2J".repeat(1000);
    for (text, format) in [
        (format!("StartTime,Proto,SrcAddr,DstAddr,Dport\n1,tcp,{long},192.0.2.25,25\n"), Format::Argus),
        (format!("StartTime,Proto,SrcAddr,DstAddr,Dport\n{long},tcp,192.0.2.1,192.0.2.25,25\n"), Format::Argus),
        (format!("#fields\tts\tid.orig_h\tid.resp_h\tid.resp_p\tproto\n{long}\t::1\t::2\t25\ttcp\n"), Format::Zeek),
    ] {
        let (_, tally) = all(&text, Some(format), &[]);
        let faults = tally.map_or_else(|why| vec![why], |tally| tally.faults);
        assert_eq!(faults.len(), 1, "{format:?}");
        let fault = &faults[0];
        assert!(fault.contains("[2J") && !fault.chars().any(char::is_control), "{fault:?}");
        assert!(fault.chars().count() < 300, "{fault:?}");
    }
}
