package extract_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/extract"
)

// TestPages reads what a page says and nothing else.
func TestPages(t *testing.T) {
	const p, h, l, c, tb = extract.Paragraph, extract.Heading, extract.List, extract.Code, extract.Table
	for name, tc := range map[string]struct {
		page string
		want []extract.Block
	}{
		"entities": {"<p>a &lt;b&gt; &amp;amp; &euro;5&nbsp;each, co&shy;operate", []extract.Block{{Kind: p, Text: "a <b> &amp; €5 each, cooperate"}}},
		"what looks like Markdown": {
			"<p># no heading<p>- no item<p>1. no item<p>--- *a*<br>===", []extract.Block{{Kind: p, Text: "# no heading"}, {Kind: p, Text: "- no item"}, {Kind: p, Text: "1. no item"}, {Kind: p, Text: "--- *a*\n==="}},
		},
		"code as it is written": {
			"<pre>\n<b>if</b> a &lt; <i>b</i> {\n\n\t# x\n<span>  </span>```\n}</pre>", []extract.Block{{Kind: c, Text: "if a < b {\n\n\t# x\n  ```\n}"}},
		},
		"code in a line":         {"<p>Call <code>f( x )</code>s, <kbd>a`b</kbd>.", []extract.Block{{Kind: p, Text: "Call `f( x )`s, a`b."}}},
		"emphasis within a word": {"<p><b>T</b>able, 10<sup>6</sup> and H<sub>2</sub>O<sup><a href=#n>1</a></sup>", []extract.Block{{Kind: p, Text: "Table, 10^6 and H2O1"}}},
		"links": {
			`<h2><a href="https://a.b">Top</a><a href="#top" title="here">¶</a></h2><p><a href="x.html" title="no">In</a> <a href="https://a.b/c">out</a> <a href="https://a.b/">https://a.b</a> <a href="#x"></a>`,
			[]extract.Block{{Kind: h, Level: 2, Text: "Top"}, {Kind: p, Text: "In out <https://a.b/c> https://a.b"}},
		},
		"what is there to move around": {
			`<div role=navigation>x</div><div class="a navheader">x</div><header>x</header><aside>x</aside><footer>x</footer><div id=cookie-banner>x</div><div hidden>x</div>` +
				`<div style="Display : none">x</div><form><input value=x><label>x</label></form><style>x</style><noscript>x</noscript><article><header><h1>Top</h1></header>Text.</article>`,
			[]extract.Block{{Kind: h, Level: 1, Text: "Top"}, {Kind: p, Text: "Text."}},
		},
		"the main part":           {`<div>Menu</div><div role=main><aside>Note.</aside><p>Text.</div>`, []extract.Block{{Kind: p, Text: "Note."}, {Kind: p, Text: "Text."}}},
		"a main part without any": {`<p>Text.<main> <script>x</script></main>`, []extract.Block{{Kind: p, Text: "Text."}}},
		"a page that is a form":   {`<form><p>Text.<input></form>`, []extract.Block{{Kind: p, Text: "Text."}}},
		"a title":                 {`<title>The  moon</title><h2>Tides</h2>x`, []extract.Block{{Kind: h, Level: 1, Text: "The moon"}, {Kind: h, Level: 2, Text: "Tides"}, {Kind: p, Text: "x"}}},
		"a title that is there":   {`<title>Tides - The moon</title><h2>Tides</h2>x`, []extract.Block{{Kind: h, Level: 2, Text: "Tides"}, {Kind: p, Text: "x"}}},
		"lists": {
			"<ul><li>a<ol start=9><li><p>b<p>c<li>d</ol><li> <li><pre>x\n y</pre></ul><ul><li><h3>Card</h3>e</ul>",
			[]extract.Block{{Kind: l, Text: "- a\n  9. b\n     c\n  10. d\n- x\n   y"}, {Kind: h, Level: 3, Text: "Card"}, {Kind: p, Text: "e"}},
		},
		"definitions": {
			"<dl><dt>-a<dt>--all<dd><p>All.<p>Really.<dt>-b<dd><pre>x</pre><dt>-c</dl>",
			[]extract.Block{{Kind: p, Text: "-a\n--all\nAll."}, {Kind: p, Text: "Really."}, {Kind: p, Text: "-b"}, {Kind: c, Text: "x"}, {Kind: p, Text: "-c"}},
		},
		"a table": {
			"<table><caption>Sizes</caption><thead><tr><th>a<th colspan=2>b</thead><tr><td rowspan=2>x<td>1<td><ul><li>2<li>3</ul><tr><td>4<td>5</table>",
			[]extract.Block{{Kind: p, Text: "Sizes"}, {Kind: tb, Text: "| a | b |  |\n|---|---|---|\n| x | 1 | 2 3 |\n| x | 4 | 5 |"}},
		},
		"a table without a head":       {"<table><tr><td>a<td>1<tr><td><td><tr><th>b<td>2</table>", []extract.Block{{Kind: l, Text: "| a | 1 |\n| b | 2 |"}}},
		"a table that shapes the page": {"<table><tr><td>Menu<td><h1>Top</h1><p>a<p>b</table>", []extract.Block{{Kind: p, Text: "Menu"}, {Kind: h, Level: 1, Text: "Top"}, {Kind: p, Text: "a"}, {Kind: p, Text: "b"}}},
		"line breaks":                  {"<p>a<br>\n b<br><br>c <wbr>d", []extract.Block{{Kind: p, Text: "a\nb"}, {Kind: p, Text: "c d"}}},
		"code in a heading":            {"<h1>a <code>b</code>\n<em>c</em></h1>x", []extract.Block{{Kind: h, Level: 1, Text: "a b c"}, {Kind: p, Text: "x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, "a.html", "", []byte(tc.page))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a few bytes ask for is not unfolded without end.
func TestPageBombs(t *testing.T) {
	for name, page := range map[string]string{
		"columns": strings.Repeat("<table><tr><td colspan=1000000000>a<td>b</table>", 1000),
		"rows":    "<table><tr><td rowspan=1000000000>" + strings.Repeat("a", 1000) + strings.Repeat("<tr><td>b", 100_000) + "</table>",
		"padding": "<table><tr><th>" + strings.Repeat("a", 1<<20) + "<th>b" + strings.Repeat("<tr><td>c<td>d", 10_000) + "</table>",
	} {
		t.Run(name, func(t *testing.T) {
			blocks, err := read(t, "a.html", "", []byte(page))
			check(t, blocks, err)
			size := 0
			for _, b := range blocks {
				size += len(b.Text)
			}
			if size > 4<<20 {
				t.Errorf("%d bytes become %d", len(page), size)
			}
		})
	}
}

// TestEncodings reads texts in the encoding that they declare.
func TestEncodings(t *testing.T) {
	const latin, japanese = "Gr\xfc\xdfe \x80", "\x93\xfa\x96\x7b"
	for name, tc := range map[string]struct{ name, mediaType, data, want string }{
		"a page, windows-1252":           {"a.html", "", `<meta charset="windows-1252"><p>` + latin, "Grüße €"},
		"a page, ISO-8859-1":             {"a.html", "", `<META http-equiv=Content-Type content="text/html; charset=iso-8859-1"><p>` + latin, "Grüße €"},
		"a page, Shift_JIS":              {"a.html", "", `<meta charset=Shift_JIS><p>` + japanese, "日本"},
		"a page, ISO-2022-JP":            {"a.html", "", "<meta charset=iso-2022-jp><p>\x1b$BF|K\\\x1b(B", "日本"},
		"XHTML":                          {"a.xhtml", "", `<?xml version="1.0" encoding="ISO-8859-15"?><p>` + "\xa4", "€"},
		"the media type goes first":      {"a.html", "text/html; charset=shift_jis", `<meta charset=windows-1252><p>` + japanese, "日本"},
		"a text":                         {"a.txt", "text/plain; charset=windows-1252", latin, "Grüße €"},
		"a text without a name":          {"a", "text/plain; charset=iso-8859-1", latin, "Grüße €"},
		"Markdown":                       {"a.md", "text/markdown; charset=ISO-8859-1", latin, "Grüße €"},
		"a wrong declaration":            {"a.html", "text/html; charset=iso-8859-1", "<p>Grüße", "Grüße"},
		"an unknown one":                 {"a.html", "", `<meta charset="x-none"><p>Grüße`, "Grüße"},
		"UTF-16, whatever it says":       {"a.html", "text/html; charset=utf-8", string(utf16of("<p>Grüße", true)), "Grüße"},
		"UTF-16 that calls itself UTF-8": {"a.html", "", string(utf16of("<meta charset=utf-8><p>Grüße", false)), "Grüße"},
	} {
		t.Run(name, func(t *testing.T) {
			blocks, err := extract.Read(t.Context(), tc.name, tc.mediaType, []byte(tc.data), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(blocks) != 1 || blocks[0].Text != tc.want {
				t.Errorf("%+v", blocks)
			}
		})
	}
	for _, page := range []string{"<p>" + latin, "<meta charset=utf-8><p>" + latin, "<meta charset=x-none><p>" + latin} {
		if blocks, err := extract.Read(t.Context(), "a.html", "", []byte(page), nil); err == nil {
			t.Errorf("%q becomes %+v", page, blocks)
		}
	}
}
