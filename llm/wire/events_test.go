package wire_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// event is one event of a stream.
type event struct{ Name, Data string }

// readAll reads events to the end of the body, or to the first error.
func readAll(body io.Reader, maxBytes int64) ([]event, error) {
	r := wire.NewEventReader(body, maxBytes)
	var events []event
	for {
		name, data, err := r.Next()
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return events, err
		}
		if !ended || len(data) > 0 {
			events = append(events, event{string(name), string(data)})
		}
		if ended {
			return events, nil
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want []event
	}{
		"nothing":                     {"", nil},
		"one":                         {"data: a\n\n", []event{{"", "a"}}},
		"named":                       {"event: n\ndata: a\n\ndata: b\n\n", []event{{"n", "a"}, {"", "b"}}},
		"the last name counts":        {"event: n\ndata: a\nevent: m\n\n", []event{{"m", "a"}}},
		"an empty name":               {"event: n\nevent\ndata: a\n\n", []event{{"", "a"}}},
		"a name without data":         {"event: n\n\ndata: a\n\n", []event{{"", "a"}}},
		"lines are joined":            {"data: a\ndata:b\ndata\ndata:  c\n\n", []event{{"", "a\nb\n\n c"}}},
		"empty data":                  {"data:\n\ndata\n\n", []event{{"", ""}, {"", ""}}},
		"only one space goes":         {"data:  a \n\n", []event{{"", " a "}}},
		"colons in the value":         {"data: a:b: c\n\n", []event{{"", "a:b: c"}}},
		"comments":                    {": x\n:\ndata: a\n:data: b\n\n", []event{{"", "a"}}},
		"other fields":                {"id: 1\nretry: 5\nfoo: bar\nDATA: x\n data: y\ndata : z\ndata: a\n\n", []event{{"", "a"}}},
		"CRLF":                        {"event: n\r\ndata: a\r\n\r\ndata: b\r\n\r\n", []event{{"n", "a"}, {"", "b"}}},
		"CR":                          {"event: n\rdata: a\r\rdata: b\r\r", []event{{"n", "a"}, {"", "b"}}},
		"all ends mixed":              {"data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n", []event{{"", "a\nb\nc"}, {"", "d"}}},
		"LF CR is two ends":           {"data: a\n\rdata: b\n\r", []event{{"", "a"}, {"", "b"}}},
		"byte order mark":             {"\uFEFFdata: a\n\n", []event{{"", "a"}}},
		"only one byte order mark":    {"\uFEFF\uFEFFdata: a\n\ndata: b\n\n", []event{{"", "b"}}},
		"no byte order mark later":    {"data: a\n\uFEFFdata: b\n\n", []event{{"", "a"}}},
		"the start of a mark":         {"\xefdata: a\n\n", nil},
		"bytes that are no text":      {"data: a\x00\xff\n\n", []event{{"", "a\x00\xff"}}},
		"other white space":           {"data:\ta\u2028b\x0b\x85\n\n", []event{{"", "\ta\u2028b\x0b\x85"}}},
		"many blank lines":            {"\n\n\r\r\n\ndata: a\n\n\n\n", []event{{"", "a"}}},
		"cut off after a line":        {"data: a\n", []event{{"", "a"}}},
		"cut off in a line":           {"data: a\n\nevent: n\ndata: b", []event{{"", "a"}, {"n", "b"}}},
		"cut off in another field":    {"data: a\nid: 4", []event{{"", "a"}}},
		"cut off before data":         {"data: a\n\nevent: n\nda", []event{{"", "a"}}},
		"longer than the read buffer": {"data: " + strings.Repeat("x", 10000) + "\n\n", []event{{"", strings.Repeat("x", 10000)}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way, body := range map[string]io.Reader{
				"at once":              strings.NewReader(tt.body),
				"byte by byte":         iotest.OneByteReader(strings.NewReader(tt.body)),
				"with the end at once": iotest.DataErrReader(strings.NewReader(tt.body)),
			} {
				got, err := readAll(body, int64(len(tt.body)))
				if err != nil {
					t.Errorf("%s: %v", way, err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", way, diff)
				}
			}
		})
	}
}

// TestEventsAtOnce shows that an event is there with its blank line, even when CR
// ends the line and a LF might follow.
func TestEventsAtOnce(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"\n", "\r", "\r\n"} {
		body, server := io.Pipe()
		go func() {
			_, _ = server.Write([]byte("data: a" + end + end)) // read below, or the test fails
		}()
		name, data, err := wire.NewEventReader(body, 100).Next()
		if string(name) != "" || string(data) != "a" || err != nil {
			t.Errorf("after %q: %q %q %v", end, name, data, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEventBounds(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection broke")
	const mb = 1 << 20
	tests := map[string]struct {
		body     io.Reader
		maxBytes int64
		want     error
		events   int
	}{
		"at the byte":         {strings.NewReader("data: a\n\n"), 9, nil, 1},
		"a byte over":         {strings.NewReader("data: a\n\n\n"), 9, wire.ErrTooLarge, 1},
		"a long line":         {strings.NewReader("data: a\n\ndata: " + strings.Repeat("x", 10*mb)), 1 << 40, wire.ErrTooLarge, 1},
		"a long comment":      {strings.NewReader(":" + strings.Repeat("x", 10*mb)), 1 << 40, wire.ErrTooLarge, 0},
		"a long event":        {strings.NewReader(strings.Repeat("data: "+strings.Repeat("x", mb)+"\n", 10)), 1 << 40, wire.ErrTooLarge, 0},
		"many events":         {strings.NewReader(strings.Repeat("data: "+strings.Repeat("x", mb)+"\n\n", 10)), 1 << 40, nil, 10},
		"an error":            {io.MultiReader(strings.NewReader("data: a\n\n"), iotest.ErrReader(broken)), 100, broken, 1},
		"an error in a event": {io.MultiReader(strings.NewReader("data: a\n"), iotest.ErrReader(broken)), 100, broken, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events, err := readAll(tt.body, tt.maxBytes)
			if !errors.Is(err, tt.want) || len(events) != tt.events {
				t.Errorf("%d events, error %v", len(events), err)
			}
		})
	}
}

func TestLeadingAndRest(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body    string
		leading byte
		rest    string
		err     error
	}{
		"JSON":             {`{"a":1}`, '{', `{"a":1}`, nil},
		"space before":     {"\uFEFF \t\r\n{}\n", '{', "{}\n", nil},
		"only white space": {" \n", 0, "", io.EOF},
		"nothing":          {"", 0, "", io.EOF},
		"only a mark":      {"\uFEFF", 0, "", io.EOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := wire.NewEventReader(strings.NewReader(tt.body), 1000)
			leading, err := r.Leading()
			if leading != tt.leading || !errors.Is(err, tt.err) {
				t.Errorf("leading %q, error %v", leading, err)
			}
			if rest, err := r.Rest(); string(rest) != tt.rest || err != nil {
				t.Errorf("rest %q, error %v", rest, err)
			}
		})
	}
	r := wire.NewEventReader(strings.NewReader(strings.Repeat("x", 11)), 10)
	if rest, err := r.Rest(); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a byte over: %q, error %v", rest, err)
	}
	r = wire.NewEventReader(strings.NewReader(strings.Repeat("x", 10)), 10)
	if rest, err := r.Rest(); len(rest) != 10 || err != nil {
		t.Errorf("at the byte: %q, error %v", rest, err)
	}
}

// TestDrain shows that the rest of a body is read if it is there, and that one
// which stays open is given up.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // whose clock stands still while a body is read
		rest := strings.NewReader("\n: bye\n")
		wire.NewEventReader(rest, 100).Drain(func() { t.Error("hung up on a body that ends") })
		if rest.Len() > 0 {
			t.Errorf("%d bytes left", rest.Len())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, hangUp := context.WithCancel(t.Context())
		body, server := io.Pipe()
		context.AfterFunc(ctx, func() { _ = server.Close() }) // as a connection ends with its request
		start := time.Now()
		wire.NewEventReader(body, 100).Drain(hangUp)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// reference reads a stream word for word as the standard describes it, section
// 9.2.6 of HTML, "Interpreting an event stream".
func reference(body string) []event {
	body = strings.TrimPrefix(body, "\uFEFF")
	body = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(body)
	var events []event
	var data, name string
	for {
		line, rest, ok := strings.Cut(body, "\n")
		if !ok { // a line that does not end is not interpreted
			return events
		}
		body = rest
		if line == "" {
			if data != "" {
				events = append(events, event{name, strings.TrimSuffix(data, "\n")})
			}
			data, name = "", ""
			continue
		}
		if strings.HasPrefix(line, ":") {
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			data += value + "\n"
		}
	}
}

// FuzzEvents compares with the standard, for which the blank line that a stream
// may lack at its end is put there.
func FuzzEvents(f *testing.F) {
	f.Add("event: n\ndata: a\r\ndata: b\r\r: c\n\ndata", 3)
	f.Add("data", 1)
	f.Add("\uFEFFdata:\n\ndata: \x00\xff\n\n\r\nid: 1\nevent", 1)
	f.Fuzz(func(t *testing.T, body string, size int) {
		want := reference(body + "\n\n")
		got, err := readAll(&pieces{body, max(size, 1)}, int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		// Of an event without data that is cut off, readAll sees nothing.
		if n := len(want); n == len(got)+1 && want[n-1].Data == "" {
			want = want[:n-1]
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", body, diff)
		}
	})
}

// pieces is a body that comes in pieces of a size.
type pieces struct {
	rest string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
