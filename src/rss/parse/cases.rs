//! Feeds of every kind, well formed or not, each with what is to be posted of it: titles and
//! links, the oldest entry first. They are the corpus of the fuzz test too.

/// What a feed is, the header Content-Type it came with, its bytes, and what is told of it.
pub(crate) type Case = (&'static str, Option<&'static str>, &'static [u8], &'static [&'static str]);

pub(super) const CASES: &[Case] = &[
    // Well formed, as the specifications have it.
    (
        "rss 2.0",
        Some("application/rss+xml"),
        br#"<?xml version="1.0"?><rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"
            xmlns:content="http://purl.org/rss/1.0/modules/content/"
            xmlns:atom="http://www.w3.org/2005/Atom"><channel><title>t</title>
            <link>https://example.org/</link><atom:link rel="self" href="https://example.org/f"/>
            <image><url>https://example.org/i</url><title>i</title></image>
            <item><title>two</title><link>/2</link><guid isPermaLink="false">2</guid>
            <pubDate>Tue, 02 Jan 2024 00:00:00 GMT</pubDate><dc:creator>a</dc:creator>
            <content:encoded><![CDATA[<p>body</p>]]></content:encoded></item>
            <item><description>&lt;p&gt;no title&lt;/p&gt;</description>
            <guid>https://example.org/1</guid><dc:date>2024-01-01</dc:date></item>
            </channel></rss>"#,
        &["no title|https://example.org/1", "two|https://example.org/2"],
    ),
    (
        "atom",
        None,
        br#"<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://example.org/a/"><title>t</title>
            <id>f</id><updated>2024-01-01T00:00:00Z</updated>
            <entry><title type="html">&lt;b&gt;bold&lt;/b&gt; &amp;eacute;</title><id>urn:3</id>
            <link rel="self" href="s"/><link rel="enclosure" href="https://example.org/sound"/>
            <link href="../b" xml:base="https://example.org/deep/er/"/></entry>
            <entry><title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">1 &lt; <em>2</em>
            </div></title><id>urn:2</id><link href="c?d&amp;e"/></entry>
            <entry><title>how to &lt;b&gt;</title><id>https://example.org/1</id>
            <source><title>other</title></source></entry></feed>"#,
        &[
            "how to <b>|https://example.org/1",
            "1 < 2|https://example.org/a/c?d&e",
            "bold é|https://example.org/deep/b",
        ],
    ),
    (
        "json feed",
        None,
        r#"{"version":"https://jsonfeed.org/version/1.1","title":"t","authors":[{"name":"a"}],
            "items":[{"id":"2","url":"/two","title":"1 < 2 <b>","tags":["x"],
            "attachments":[{"url":"https://example.org/a","mime_type":"audio/mpeg"}]},
            {"id":"1","content_text":"hello\nworld \ud83d\ude00"}]}"#
            .as_bytes(),
        &["hello world 😀|", "1 < 2 <b>|https://example.org/two"],
    ),
    (
        "rdf",
        None,
        br#"<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
            xmlns="http://purl.org/rss/1.0/"><channel rdf:about="https://example.org/"><title>t</title>
            <items><rdf:Seq><rdf:li resource="https://example.org/1"/></rdf:Seq></items></channel>
            <item rdf:about="https://example.org/x"><title>one</title>
            <link>https://example.org/1</link></item></rdf:RDF>"#,
        &["one|https://example.org/1"],
    ),
    ("rss without entries", None, b"<rss version='2.0'><channel></channel></rss>", &[]),
    ("atom without entries", None, b"<feed xmlns='http://www.w3.org/2005/Atom'/>", &[]),
    ("json without entries", None, br#"{"version":"1","items":[]}"#, &[]),
    // Encodings.
    (
        "charset of the header",
        Some("text/xml;charset=WINDOWS-1251"),
        b"<?xml version='1.0'?><rss><channel><item><title>\xcf\xf0\xe8\xe2\xe5\xf2</title></item></channel></rss>",
        &["Привет|"],
    ),
    (
        "long declaration",
        None,
        b"<?xml version='1.0' encoding='windows-1251'                                          ?><rss><channel><item><title>\xcf\xf0\xe8\xe2\xe5\xf2</title></item></channel></rss>",
        &["Привет|"],
    ),
    (
        "declaration that is not closed as it should be",
        None,
        b"<?xml version='1.0' encoding='windows-1251'><rss><channel><item><title>\xcf\xf0\xe8\xe2\xe5\xf2</title></item></channel></rss>",
        &["Привет|"],
    ),
    (
        "one bad byte",
        None,
        b"<?xml version='1.0' encoding='UTF-8'?><rss><channel><item><title>caf\xe9</title></item><item><title>fine</title></item></channel></rss>",
        &["fine|", "caf\u{fffd}|"],
    ),
    (
        "second declaration",
        None,
        "<?xml version='1.0' encoding='UTF-8'?><rss><channel><?xml version='1.0' encoding='windows-1251'?><item><title>Grüße</title></item></channel></rss>".as_bytes(),
        &["Grüße|"],
    ),
    (
        "utf-8 that says utf-16",
        None,
        "<?xml version='1.0' encoding='utf-16'?><rss><channel><item><title>Grüße</title></item></channel></rss>".as_bytes(),
        &["Grüße|"],
    ),
    (
        "utf-16 with its mark",
        None,
        b"\xfe\xff\0<\0r\0s\0s\0>\0<\0i\0t\0e\0m\0>\0<\0t\0i\0t\0l\0e\0>\0\xfc\0<\0/\0t\0i\0t\0l\0e\0>\0<\0/\0i\0t\0e\0m\0>\0<\0/\0r\0s\0s\0>",
        &["ü|"],
    ),
    ("json with a mark", None, b"\xef\xbb\xbf{\"items\":[{\"id\":\"1\",\"title\":\"one\"}]}", &["one|"]),
    // References and markup.
    (
        "bare ampersand",
        None,
        b"<rss><channel><item><title>a & b &c; AT&T</title><link>/?a=1&b=2</link></item><item><title>fine</title></item></channel></rss>",
        &["fine|", "a & b &c; AT&T|https://example.org/?a=1&b=2"],
    ),
    (
        "references that mean no character",
        None,
        b"<rss><channel><item><title>a &#0; b &#xd800; &#x110000; c</title></item><item><title>fine</title></item></channel></rss>",
        &["fine|", "a \u{fffd} b \u{fffd} \u{fffd} c|"],
    ),
    (
        "references of windows-1252",
        None,
        b"<rss><channel><item><title>It&#146;s &#147;here&#148;</title></item><item><title>It&amp;#146;s &amp;#x96; here &#x80;</title></item></channel></rss>",
        &["It’s – here €|", "It’s “here”|"],
    ),
    (
        "references of html",
        None,
        b"<feed><entry><title>caf&eacute; &mdash;&nbsp;&amp;eacute; &nosuch;</title><id>1</id></entry></feed>",
        &["café — &eacute; &nosuch;|"],
    ),
    (
        "entities that grow",
        None,
        b"<!DOCTYPE rss [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><rss><channel><item><title>x&b;</title></item></channel></rss>",
        &["x&b;|"],
    ),
    (
        "void elements",
        None,
        b"<rss><channel><item><title>a<br>b <img src='x'> c<hr></title><link>/1</link></item><item><description>a<br>b<p>c</description></item></channel></rss>",
        &["a b c|", "a b c|https://example.org/1"],
    ),
    (
        "markup in a title",
        None,
        b"<rss><channel><item><title>Hi <b>there</b> you</title></item><item><title><b>Bold</b> start</title></item><item><title>If a<b and 1 < 2 <3</title></item></channel></rss>",
        &["If a<b and 1 < 2 <3|", "Bold start|", "Hi there you|"],
    ),
    (
        "tags that are closed in another order, or never",
        None,
        b"<rss><channel><item><title><b>a <i>b</b> c</i></title><link>/1</link><br><x></item><item><title>d<link>/2</link></item><item><title>e</title></channel></rss>",
        &["e|", "d|https://example.org/2", "a b c|https://example.org/1"],
    ),
    (
        "attributes without quotes",
        None,
        b"<feed><entry><title type=html>&lt;b&gt;a&lt;/b&gt;</title><link rel=alternate href=https://example.org/1></link><id>1</id></entry></feed>",
        &["a|https://example.org/1"],
    ),
    (
        "sections",
        None,
        b"<rss><channel><item><title><![CDATA[a <b>b</b> &amp; ]]>c<![CDATA[ d]]></title></item><item><title><![CDATA[left open</title></item><item><title><![CDATA[e]]></title></item></channel></rss>",
        &["e|", "left open|", "a b & c d|"],
    ),
    (
        "control characters",
        None,
        b"<rss><channel><item><title>a\x01b\0c\x0bd</title></item></channel></rss>",
        &["a b c d|"],
    ),
    (
        "upper case",
        None,
        b"<RSS VERSION='2.0'><CHANNEL><ITEM><TITLE>one</TITLE><LINK>/1</LINK></ITEM></CHANNEL></RSS>",
        &["one|https://example.org/1"],
    ),
    (
        "warning before the feed",
        None,
        b"\n<br />\n<b>Warning</b>: {x} in <b>/feed.php</b> on line <b>3</b><br />\n<?xml version='1.0'?><rss><channel><item><title>one</title></item></channel></rss>",
        &["one|"],
    ),
    (
        "brace before the feed",
        None,
        b"Notice: {x} <?xml version='1.0'?><rss><channel><item><title>one</title></item></channel></rss>",
        &["one|"],
    ),
    (
        "cut in an entry",
        None,
        b"<rss version='2.0'><channel><item><title>one</title></item><item><title>tw",
        &["one|"],
    ),
    // Namespaces and places.
    (
        "rss in a namespace",
        None,
        b"<rss version='2.0' xmlns='http://backend.userland.com/rss2'><channel><item><title>one</title></item></channel></rss>",
        &["one|"],
    ),
    (
        "rss in the namespace of atom",
        None,
        b"<rss version='2.0' xmlns='http://www.w3.org/2005/Atom'><channel><item><title>one</title><link>/1</link></item></channel></rss>",
        &["one|https://example.org/1"],
    ),
    (
        "rss with a prefix",
        None,
        b"<rss:rss xmlns:rss='http://purl.org/rss/1.0/'><rss:channel><rss:item><rss:title>one</rss:title></rss:item></rss:channel></rss:rss>",
        &["one|"],
    ),
    ("rss of an odd version", None, b"<rss version='0.94'><channel><item><title>one</title></item></channel></rss>", &["one|"]),
    ("channel without rss", None, b"<channel><item><title>one</title></item></channel>", &["one|"]),
    (
        "items beside the channel",
        None,
        b"<rss version='0.91'><channel><title>t</title></channel><item><title>one</title></item></rss>",
        &["one|"],
    ),
    (
        "rdf 0.90 with items in the channel",
        None,
        b"<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://my.netscape.com/rdf/simple/0.9/'><channel><item rdf:about='https://example.org/1'><title>one</title></item></channel></rdf:RDF>",
        &["one|https://example.org/1"],
    ),
    (
        "atom 0.3",
        None,
        b"<feed version='0.3' xmlns='http://purl.org/atom/ns#'><entry><title mode='escaped' type='text/html'>&lt;b&gt;two&lt;/b&gt;</title><id>2</id><issued>2024-01-02T00:00:00Z</issued></entry><entry><title>one</title><id>1</id><modified>2024-01-01T00:00:00Z</modified><content mode='base64' type='image/png'>AAAA</content></entry></feed>",
        &["one|", "two|"],
    ),
    (
        "atom misspelt",
        None,
        b"<atom:feed xmlns:atom='https://www.w3.org/2005/atom/'><atom:entry><atom:title>one</atom:title><atom:link href='/1'/></atom:entry></atom:feed>",
        &["one|https://example.org/1"],
    ),
    (
        "odd types",
        None,
        b"<feed xmlns='http://www.w3.org/2005/Atom'><entry><title type='TEXT'>1 &lt;b&gt;</title><content type='markdown'>s</content></entry><entry><title type=''>2</title></entry><entry><content type='image/svg+xml'><svg/></content><title type='text/plain'>3</title></entry></feed>",
        &["3|", "2|", "1 <b>|"],
    ),
    (
        "atom and dublin core in rss",
        None,
        b"<rss xmlns:a10='http://www.w3.org/2005/Atom' xmlns:dc='http://purl.org/dc/elements/1.1/'><channel><item><dc:title>one</dc:title><a10:link rel='self' href='/s'/><a10:link href='/1'/></item><item><title>two</title><link href='/2'/></item></channel></rss>",
        &["two|https://example.org/2", "one|https://example.org/1"],
    ),
    (
        "guid that is no address",
        None,
        b"<rss><channel><item><title>one</title><guid isPermaLink='false'>https://example.org/1</guid></item></channel></rss>",
        &["one|"],
    ),
    (
        "elements of others",
        None,
        b"<rss xmlns:m='http://search.yahoo.com/mrss/'><channel><item><title>one</title><m:title>x</m:title><m:group><m:title>y</m:title><link>/x</link></m:group><m:thumbnail time='99999999999999999999999'></item></channel></rss>",
        &["one|"],
    ),
    // JSON.
    (
        "json with odd fields",
        None,
        br#"{"items":[{"id":2,"title":"two","tags":"a,b","attachments":[{"url":"/a.mp3"}],"authors":null,"url":null},
            {"id":1.5,"title":"one","external_url":"https://example.org/1","author":"x","attachments":{}},
            {"id":null,"title":null,"summary":true}]}"#,
        &["true|", "one|https://example.org/1", "two|https://example.org/a.mp3"],
    ),
    (
        "json with broken items",
        None,
        br#"{"version":"http://jsonfeed.org/version/1","items":[{"id":"1","title":"a\ud83d"},{"id":"2",,},{"id":"3","title":"c	d"}]}"#,
        &["c d|", "a\u{fffd}|"],
    ),
    // Names that do not name.
    (
        "one guid for all",
        None,
        b"<rss><channel><item><title>b</title><guid>x</guid></item><item><title>a</title><guid>x</guid></item><item><title>a</title><guid>x</guid></item></channel></rss>",
        &["a|", "b|"],
    ),
    (
        "one link for all",
        None,
        b"<rss><channel><item><title>b</title><link>/</link></item><item><title>a</title><link>/</link></item></channel></rss>",
        &["a|https://example.org/", "b|https://example.org/"],
    ),
    (
        "entry that says nothing",
        None,
        b"<rss><channel><item/><item><pubDate>2024-01-01</pubDate></item><item><title>one</title></item></channel></rss>",
        &["one|"],
    ),
];
