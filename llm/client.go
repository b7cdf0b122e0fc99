package llm

import (
	"net"
	"net/http"
	"time"
)

// NewHTTPClient returns a client made for streams of model providers, to be
// created once and shared by all of them. It has no overall timeout, because
// Guard bounds calls; it keeps many idle connections per host, so that parallel
// prompts find open ones; it does not ask for compression, which would hold back
// small chunks; and it does not follow redirects, because an API key must not
// travel to where a redirect points.
func NewHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dialer.DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          1024,
			MaxIdleConnsPerHost:   256,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true,
			HTTP2: &http.HTTP2Config{
				SendPingTimeout: 30 * time.Second,
				PingTimeout:     15 * time.Second,
			},
		},
	}
}
