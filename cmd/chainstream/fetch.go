package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/chainstream/chainstream/egress"
	"github.com/chainstream/chainstream/knowledge"
)

// fetcher fetches the documents that are named by their addresses.
type fetcher struct{ *egress.Fetcher }

// Fetch implements knowledge.Fetcher.
func (f fetcher) Fetch(ctx context.Context, url string) (mediaType string, data []byte, err error) {
	got, err := f.Fetcher.Fetch(ctx, url)
	if e, ok := errors.AsType[*egress.Error](err); ok {
		err = &knowledge.FetchError{Reason: e.Message, Passing: e.Passing, Err: e.Err}
	}
	return got.MediaType, got.Data, err
}

// allowed reads the networks of --fetch-allow.
func (f knowledgeFlags) allowed() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range f.FetchAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ip, ipErr := netip.ParseAddr(text)
			if ipErr != nil {
				return nil, usage("--fetch-allow: %q is neither an address nor a network such as 10.0.0.0/8", text)
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
