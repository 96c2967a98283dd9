//! What the lease files of the five kinds say, whole, damaged and cut.

use proptest::prelude::*;

use super::*;

const DNSMASQ: &str = "\
1764066000 00:1b:21:0a:0b:0c 10.0.0.23 desk-7 01:00:1b:21:0a:0b:0c
0 02:42:ac:11:00:02 10.0.0.24 * *
1764066001 06-02:aa:bb:cc:dd:ee:ff 10.0.0.25 odd *
duid 00:01:00:01:2e:aa:bb:cc:00:1b:21:00:00:01
1764066002 123456 2001:db8::23 desk-7 00:03:00:01:00:1b:21:0a:0b:0c
1764066003 T77 2001:db8::24 * 00:04:aa:bb
";

const DHCPD: &str = r#"# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
server-duid "\000\001\000\001";
lease 10.0.0.23 {
  starts 3 2026/11/25 01:00:00;
  ends 3 2026/11/25 13:00:00;
  binding state active;
  hardware ethernet 00:1b:21:0a:0b:0c;
  client-hostname "old";
}
lease 10.0.0.24 {
  ends never;
  binding state active;
  next binding state free;
  hardware ethernet 00:1b:21:0a:0b:0d;
  uid "\001\000\033!\012\013\015";
  set ddns-fwd-name = "printer.example";
  on commit { execute ("x { y"); }
}
lease 10.0.0.23 {
  ends epoch 1795611600; # Wed Nov 25 13:00:00 2026
  binding state active;
  hardware ethernet 00:1b:21:0a:0b:0c;
  client-hostname "de\"sk}; -7\303\274";
}
lease 10.0.0.25 { binding state active; hardware ethernet 00:1b:21:0a:0b:0e; }
lease 10.0.0.25 { binding state free; hardware ethernet 00:1b:21:0a:0b:0e; }
ia-na "\001\000\000\000\000\003\000\001\000\033!\012\013\014" {
  cltt 3 2026/11/25 10:00:00;
  iaaddr 2001:db8::23 {
    binding state active;
    preferred-life 375;
    ends 3 2026/11/25 13:00:00;
    set ddns-fwd-name = "desk-7.example";
  }
}
"#;

const KEA4: &str = "\
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.0.0.23,00:1b:21:0a:0b:0c,01:00:1b:21:0a:0b:0c,3600,1764066000,1,0,0,old,0,,0
10.0.0.24,00:1b:21:0a:0b:0d,,4294967295,5000000000,1,0,0,a&#x2cb.example.,0,{ \"a\": 1&#x2c \"b\": 2 },0
10.0.0.23,00:1b:21:0a:0b:0c,01:00:1b:21:0a:0b:0c,3600,1764069600,1,0,0,desk-7,0,,0
10.0.0.25,00:1b:21:0a:0b:0e,,3600,1764066000,1,0,0,gone,0,,0
10.0.0.25,00:1b:21:0a:0b:0e,,0,1764066000,1,0,0,gone,0,,0
10.0.0.26,,,3600,1764066000,1,0,0,,1,,0
10.0.0.27,00:1b:21:0a:0b:0f,,3600,1764066000,1,0,0,reclaimed,2,,0
";

const KEA6: &str = "\
address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state
2001:db8::23,00:03:00:01:00:1b:21:0a:0b:0c,3600,1764066000,1,1800,0,7,128,0,0,desk-7,00:1b:21:0a:0b:0c,0
2001:db8:1::,00:03:00:01:00:1b:21:0a:0b:0c,3600,1764066000,1,1800,2,7,56,0,0,,,0
";

const NETWORKD: &str = r#"{"BootID":"00112233445566778899aabbccddeeff","Address":[10,0,0,1],"PrefixLength":24,"Leases":[
{"ClientId":[1,0,27,33,10,11,12],"Address":[10,0,0,23],"Hostname":"desk-7","ExpirationUSec":1,"ExpirationRealtimeUSec":1764066000000000},
{"ClientId":[255,1,2,3,4],"Address":[10,0,0,24],"HardwareAddressType":1,"HardwareAddressLength":6,"HardwareAddress":[0,27,33,10,11,13]},
{"ClientId":[255],"Address":"10.0.0.25"},
{"ClientId":[255,9],"Address":[10,0,0,26],"HardwareAddressType":32,"HardwareAddress":[0,27,33,10,11,13]}]}
"#;

const MICROSOFT: &str =
    "#TYPE Microsoft.Management.Infrastructure.CimInstance#root/Microsoft/Windows/DHCP/DhcpServerv4Lease\r
\"IPAddress\",\"ScopeId\",\"AddressState\",\"ClientId\",\"HostName\",\"LeaseExpiryTime\"\r
\"10.0.0.23\",\"10.0.0.0\",\"Active\",\"00-1b-21-0a-0b-0c\",\"desk-7.corp.example\",\"2026-11-25 13:00:00\"\r
\"10.0.0.24\",\"10.0.0.0\",\"ActiveReservation\",\"00-1B-21-0A-0B-0D\",\"printer, 2nd \"\"floor\"\"\",\"\"\r
\"10.0.0.25\",\"10.0.0.0\",\"Declined\",\"00-1b-21-0a-0b-0e\",\"\",\"\"\r
\"ten\",\"10.0.0.0\",\"Active\",\"00-1b-21-0a-0b-0e\",\"\",\"\"\r
\"10.0.0.26\",\"10.0.0.0\",\"Active\",\"52-41-53-20-01\",\"\",\"\"\r
";

/// A lease in short.
fn short(lease: &Lease) -> String {
    let mac = lease.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let expires = lease.expires.map(|when| when.as_second().to_string()).unwrap_or_default();
    let (name, id) = (lease.name.as_deref().unwrap_or_default(), lease.client_id.as_deref().unwrap_or_default());
    format!("{} {mac} {name} {id} {expires}", lease.address)
}

fn shorts(kind: Kind, text: &str) -> Vec<String> {
    parse(kind, text.as_bytes()).leases.iter().map(short).collect()
}

/// The text in UTF-16, with its byte order mark.
fn wide(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(order).collect()
}

#[test]
fn dnsmasq_leases_of_both_families_are_read() {
    let expected = [
        "10.0.0.23 00:1b:21:0a:0b:0c desk-7 01:00:1b:21:0a:0b:0c 1764066000",
        "10.0.0.24 02:42:ac:11:00:02   ",
        "10.0.0.25  odd  1764066001",
        "2001:db8::23  desk-7 00:03:00:01:00:1b:21:0a:0b:0c 1764066002",
        "2001:db8::24   00:04:aa:bb 1764066003",
    ];
    assert_eq!(shorts(Kind::Dnsmasq, DNSMASQ), expected);
    assert_eq!(parse(Kind::Dnsmasq, DNSMASQ.as_bytes()).bad_lines, 0);
}

#[test]
fn what_the_servers_of_debian_12_have_written_is_read() {
    // Two clients of udhcpc, the name of one made to do harm: ev"il};\x$(x) é. Only Kea keeps something of it.
    let desk = |address: &str, expires: &str| {
        format!("10.77.0.{address} 00:1b:21:00:00:01 desk-7 01:00:1b:21:00:00:01 {expires}")
    };
    let other = |address: &str, name: &str, expires: &str| {
        format!("10.77.0.{address} 00:1b:21:00:00:02 {name} 01:00:1b:21:00:00:02 {expires}")
    };
    let dnsmasq = include_str!("tests/dnsmasq.leases");
    assert_eq!(shorts(Kind::Dnsmasq, dnsmasq), [other("52", "", "1795604320"), desk("51", "1795604317")]);
    let dhcpd = include_str!("tests/dhcpd.leases");
    assert_eq!(shorts(Kind::Dhcpd, dhcpd), [desk("70", "1795601323"), other("71", "", "1795601324")]);
    let kea = include_str!("tests/kea-leases4.csv");
    assert_eq!(shorts(Kind::Kea, kea), [desk("90", "1795601327"), other("91", "evilxx", "1795601327")]);
    for (text, kind) in [(dnsmasq, Kind::Dnsmasq), (dhcpd, Kind::Dhcpd), (kea, Kind::Kea)] {
        assert_eq!((detect(text.as_bytes()), parse(kind, text.as_bytes()).bad_lines), (Some(kind), 0));
    }
}

#[test]
fn dhcpd_leases_are_the_last_of_their_address_and_strings_hide_nothing() {
    let expected = [
        "10.0.0.23 00:1b:21:0a:0b:0c desk-7  1795611600",
        "10.0.0.24 00:1b:21:0a:0b:0d printer.example 01:00:1b:21:0a:0b:0d ",
        "2001:db8::23  desk-7.example 00:03:00:01:00:1b:21:0a:0b:0c 1795611600",
    ];
    assert_eq!(shorts(Kind::Dhcpd, DHCPD), expected);
    let damaged =
        "\nlease 10.0.0.1 {\n hardware ethernet 00:zz;\n ends tomorrow;\n binding state active; }\nlease ten { }\n";
    let parsed = parse(Kind::Dhcpd, damaged.as_bytes());
    assert_eq!((parsed.leases.len(), parsed.bad_lines, parsed.first_bad), (1, 3, Some(3)));
}

#[test]
fn kea_journals_are_read_by_their_header() {
    let expected = [
        "10.0.0.23 00:1b:21:0a:0b:0c desk-7 01:00:1b:21:0a:0b:0c 1764069600",
        "10.0.0.24 00:1b:21:0a:0b:0d ab.example  ",
    ];
    assert_eq!(shorts(Kind::Kea, KEA4), expected);
    let v6 = ["2001:db8::23 00:1b:21:0a:0b:0c desk-7 00:03:00:01:00:1b:21:0a:0b:0c 1764066000"];
    assert_eq!(shorts(Kind::Kea, KEA6), v6);
    // Parts one after the other: a header changes the columns, and what is later counts.
    let both = format!("{KEA4}{KEA6}");
    assert_eq!(shorts(Kind::Kea, &both).len(), 3);
    let without = parse(Kind::Kea, b"10.0.0.1,x\n10.0.0.2,y\n");
    assert_eq!((without.leases.len(), without.bad_lines, without.first_bad), (0, 2, Some(1)));
}

#[test]
fn networkd_leases_have_the_card_or_the_identifier_that_is_one() {
    let expected = [
        "10.0.0.23 00:1b:21:0a:0b:0c desk-7 01:00:1b:21:0a:0b:0c 1764066000",
        "10.0.0.24 00:1b:21:0a:0b:0d  ff:01:02:03:04 ",
        "10.0.0.26   ff:09 ",
    ];
    assert_eq!(shorts(Kind::Networkd, NETWORKD), expected);
    let parsed = parse(Kind::Networkd, NETWORKD.as_bytes());
    assert_eq!((parsed.bad_lines, parsed.first_bad), (1, Some(3)));
    // Before it had a header, the file was the list alone.
    let list = r#"[{"ClientId":[1,0,27,33,10,11,12],"Address":[10,0,0,23]}]"#;
    assert_eq!(shorts(Kind::Networkd, list), ["10.0.0.23 00:1b:21:0a:0b:0c  01:00:1b:21:0a:0b:0c "]);
}

#[test]
fn microsoft_exports_are_read_in_every_encoding() {
    let first = "10.0.0.23 00:1b:21:0a:0b:0c desk-7.corp.example 00:1b:21:0a:0b:0c";
    let encodings = [
        MICROSOFT.as_bytes().to_owned(),
        format!("\u{feff}{MICROSOFT}").into_bytes(),
        wide(MICROSOFT, u16::to_le_bytes),
        wide(MICROSOFT, u16::to_be_bytes),
        MICROSOFT.replace("\",\"", "\";\"").into_bytes(),
    ];
    for bytes in encodings {
        assert_eq!(detect(&bytes), Some(Kind::Microsoft));
        let parsed = parse(Kind::Microsoft, &bytes);
        let shown: Vec<String> = parsed.leases.iter().map(short).collect();
        assert!(shown[0].starts_with(first), "{shown:?}");
        assert_eq!(shown[1].trim(), "10.0.0.24 00:1b:21:0a:0b:0d printer2ndfloor 00:1b:21:0a:0b:0d");
        assert_eq!(shown[2].trim(), "10.0.0.26   52:41:53:20:01", "a dial-in client has no card");
        assert_eq!((shown.len(), parsed.bad_lines, parsed.first_bad), (3, 1, Some(6)));
    }
}

#[test]
fn a_file_shows_whose_it_is() {
    let texts = [
        (DNSMASQ, Kind::Dnsmasq),
        ("duid 00:01\n", Kind::Dnsmasq),
        (DHCPD, Kind::Dhcpd),
        (KEA4, Kind::Kea),
        (KEA6, Kind::Kea),
        (NETWORKD, Kind::Networkd),
        (MICROSOFT, Kind::Microsoft),
    ];
    for (text, kind) in texts {
        assert_eq!(detect(text.as_bytes()), Some(kind), "{text}");
    }
    assert_eq!((detect(b""), detect(b"# a comment\n"), detect(b"hello world\n")), (None, None, None));
    assert!("isc".parse::<Kind>().unwrap_err().to_string().contains("dnsmasq"));
    assert_eq!("kea".parse::<Kind>().unwrap(), Kind::Kea);
}

#[test]
fn a_name_is_what_a_name_may_be() {
    let hostile = b"de\x1b[31msk\x00\n\r \"7'`$(x);<b>\xff\xc3\xbc..";
    assert_eq!(host_name(hostile).as_deref(), Some("de31msk7xb"));
    assert_eq!(host_name(&[b'a'; 400]).map(|name| name.len()), Some(LONGEST_NAME));
    assert_eq!((host_name(b"..."), host_name(b""), host_name("ü".as_bytes())), (None, None, None));
    let line = "1764066000 00:1b:21:0a:0b:0c 10.0.0.23 \u{1b}[2Jroot;x *\nnot a lease\n";
    let parsed = parse(Kind::Dnsmasq, line.as_bytes());
    assert_eq!(parsed.leases[0].name.as_deref(), Some("2Jrootx"));
    assert_eq!((parsed.bad_lines, parsed.first_bad), (1, Some(2)));
}

#[test]
fn a_file_without_end_is_bounded() {
    let lines: String = (0..MOST_LEASES + 5)
        .map(|n| format!("0 00:1b:21:0a:0b:0c 10.{}.{}.{} * *\n", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    let parsed = parse(Kind::Dnsmasq, lines.as_bytes());
    assert_eq!((parsed.leases.len(), parsed.left_out), (MOST_LEASES, 5));
}

#[test]
fn a_file_that_is_cut_anywhere_has_a_part_of_its_leases_and_nothing_else() {
    // Each address once, so that a cut does not show an older entry of the journal.
    let dhcpd: String = DHCPD.replace("lease 10.0.0.23 {\n  starts", "lease 10.0.0.22 {\n  starts");
    let kea = KEA4.replacen("10.0.0.23", "10.0.0.22", 1).replace("10.0.0.25,00:1b:21:0a:0b:0e,,3600", "x");
    for (kind, text) in [
        (Kind::Dnsmasq, DNSMASQ),
        (Kind::Dhcpd, dhcpd.as_str()),
        (Kind::Kea, kea.as_str()),
        (Kind::Kea, KEA6),
        (Kind::Networkd, NETWORKD),
        (Kind::Microsoft, MICROSOFT),
    ] {
        let whole: Vec<Lease> = parse(kind, text.as_bytes()).leases;
        for cut in 0..text.len() {
            let part = parse(kind, &text.as_bytes()[..cut]).leases;
            // 10.0.0.25 is active before it is free.
            let part: Vec<Lease> = part
                .into_iter()
                .filter(|lease| !lease.address.to_string().ends_with(".25") || kind != Kind::Dhcpd)
                .collect();
            assert!(whole.starts_with(&part), "{kind:?} cut at {cut}: {part:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_break_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for (_, kind) in KINDS {
            prop_assert!(parse(kind, &bytes).leases.len() <= bytes.len());
        }
        prop_assert!(detect(&bytes).is_none_or(|kind| KINDS.iter().any(|(_, known)| *known == kind)));
    }

    #[test]
    fn no_damage_breaks_a_reader(which in 0_usize..6, at in 0_usize..2000, with in proptest::collection::vec(any::<u8>(), 0..8)) {
        let texts = [DNSMASQ, DHCPD, KEA4, KEA6, NETWORKD, MICROSOFT];
        let mut bytes = texts[which].as_bytes().to_owned();
        let at = at % bytes.len();
        let end = (at + with.len()).min(bytes.len());
        bytes.splice(at..end, with);
        for (_, kind) in KINDS {
            for lease in parse(kind, &bytes).leases {
                prop_assert!(lease.name.is_none_or(|name| host_name(name.as_bytes()).as_deref() == Some(name.as_str())));
            }
        }
    }
}
