package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// guard refuses requests that a browser was tricked into. The server has no
// accounts and serves the machine it runs on, so a web page elsewhere must be
// able neither to reach it under a name of its own (DNS rebinding), which the
// Host header shows, nor to send requests across sites, which Origin and
// Sec-Fetch-Site show. It holds for every route, streams included.
//
// One request from a foreign page is harmless and wanted: following a link to
// the web page or the documentation.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		if !loopbackHost(req.Host) {
			return &problem{kind: kindHost, detail: "Use localhost, 127.0.0.1 or [::1] in the address: without accounts this server answers its own machine only."}
		}
		if origins := req.Header.Values("Origin"); len(origins) > 1 || len(origins) == 1 && !sameOrigin(origins[0], req.Host) {
			return &problem{kind: kindOrigin, detail: "The Origin header names another page than this server's own."}
		}
		if !ownPage(req.Header.Values("Sec-Fetch-Site")) && !followsLink(req) {
			return &problem{kind: kindOrigin, detail: "The browser says that the request was made by another page."}
		}
		return next(c)
	}
}

// ownPage tells whether Sec-Fetch-Site names our own page, the user, or nobody:
// programs send no such header. A page on another port of the same machine is
// "same-site" and as foreign as any other.
func ownPage(sites []string) bool {
	return len(sites) == 0 || len(sites) == 1 && (sites[0] == "same-origin" || sites[0] == "none")
}

// followsLink tells whether a browser opens a page in a window of its own.
func followsLink(req *http.Request) bool {
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) &&
		(req.URL.Path == "/" || req.URL.Path == "/docs") &&
		req.Header.Get("Sec-Fetch-Mode") == "navigate" && req.Header.Get("Sec-Fetch-Dest") == "document"
}

// loopbackHost tells whether a Host header names the own machine: localhost, a
// name below it (RFC 6761), or a loopback address; any port.
func loopbackHost(host string) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// sameOrigin tells whether an Origin header is the page of this very server.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	return u.User == nil && u.Path == "" && u.RawQuery == "" && u.Fragment == "" && strings.EqualFold(u.Host, host)
}
