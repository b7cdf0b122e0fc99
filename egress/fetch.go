package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config says how far a Fetcher goes.
type Config struct {
	Allow   []netip.Prefix // special addresses that may be reached nevertheless
	Most    int64          // bytes of an answer; 0 = 32 MiB
	Timeout time.Duration  // of everything; 0 = 30 s
	// Resolver resolves names; nil = the system's.
	Resolver *net.Resolver
}

// Fetcher fetches addresses that users name. It is safe for concurrent use.
type Fetcher struct {
	client *http.Client
	most   int64
}

// Error says why something was not fetched.
type Error struct {
	Message string // a sentence, safe for users
	Passing bool   // another try may help
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fetched is what was there.
type Fetched struct {
	Data      []byte
	MediaType string // with its charset, unless that is UTF-8
}

// mostHops bounds redirects.
const mostHops = 5

// New makes a Fetcher.
func New(c Config) *Fetcher {
	if c.Most == 0 {
		c.Most = 32 << 20
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Resolver: c.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		return c.check(address)
	}}
	return &Fetcher{most: c.Most, client: &http.Client{
		Timeout: c.Timeout,
		// No proxy: it would connect to what is refused here.
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: c.Timeout,
			MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > mostHops {
				return &Error{Message: fmt.Sprintf("The address redirects more than %d times.", mostHops)}
			}
			_, err := Parse(req.URL.String())
			return err
		},
	}}
}

// check refuses a connection.
func (c Config) check(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &Error{Message: "The address cannot be connected to.", Err: err}
	}
	ip := to.Addr()
	if within(ip.Unmap(), c.Allow) || within(ip, c.Allow) || Public(ip) {
		return nil
	}
	return &Error{Message: "The address leads to a machine or network that this server does not fetch from; an operator can allow it with --fetch-allow."}
}

// Parse reads an address that a user names.
func Parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, &Error{Message: "This is no web address."} // url's error quotes it
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, &Error{Message: "Only http and https addresses are fetched."}
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return nil, &Error{Message: "The web address names no host."}
	case u.User != nil:
		return nil, &Error{Message: "A web address with a user name or a password is not fetched."}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, &Error{Message: "The web address has a port that there is not; ports are 1 to 65535."}
		}
	}
	return u, nil
}

// Fetch answers what is at an address. Its error is an *Error, or that of ctx.
func (f *Fetcher) Fetch(ctx context.Context, address string) (Fetched, error) {
	u, err := Parse(address)
	if err != nil {
		return Fetched{}, err
	}
	u.Fragment = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Fetched{}, &Error{Message: "This is no web address.", Err: err}
	}
	req.Header.Set("User-Agent", "chainstream")
	req.Header.Set("Accept", "*/*")
	res, err := f.client.Do(req)
	if err != nil {
		return Fetched{}, f.failure(ctx, err)
	}
	defer res.Body.Close()
	if err := status(res.StatusCode); err != nil {
		return Fetched{}, err
	}
	if e := res.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return Fetched{}, &Error{Message: "The address answered with an encoding that was not asked for."}
	}
	if res.ContentLength > f.most {
		return Fetched{}, f.tooLarge()
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, f.most+1))
	if err != nil {
		return Fetched{}, f.failure(ctx, err)
	}
	if int64(len(data)) > f.most {
		return Fetched{}, f.tooLarge()
	}
	return Fetched{Data: data, MediaType: mediaType(res.Header.Get("Content-Type"))}, nil
}

// mediaType answers what a Content-Type says, "" where it cannot be read: then the content
// tells.
func mediaType(header string) string {
	name, params, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return mime.FormatMediaType(name, map[string]string{"charset": charset})
	}
	return name
}

func (f *Fetcher) tooLarge() error {
	return &Error{Message: fmt.Sprintf("What is at the address has more than %d bytes.", f.most)}
}

// failure tells what another try may mend.
func (f *Fetcher) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return &Error{Message: "The host of the address does not exist.", Err: err}
	}
	return &Error{Message: "The address could not be fetched: it does not answer as it should.", Passing: true, Err: err}
}

func status(code int) error {
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return &Error{Message: fmt.Sprintf("The address answered with status %d.", code), Passing: true}
	default:
		return &Error{Message: fmt.Sprintf("The address answered with status %d.", code)}
	}
}
