package httpapi

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// Media types of answers.
const (
	mediaTypeJSON   = "application/json"
	mediaTypeNDJSON = "application/x-ndjson"
	mediaTypeCSV    = "text/csv"
	mediaTypeStream = "text/event-stream"
)

// preferred answers which of the offered media types the Accept header wants
// most (RFC 9110, section 12.5.1). The first offer wins ties, and serves those
// who name none of the offers: a wrong Accept header is no reason to fail.
func preferred(h http.Header, offers ...string) string {
	best, most := offers[0], 0.0
	for _, offer := range offers {
		if q := quality(h.Values(echo.HeaderAccept), offer); q > most {
			best, most = offer, q
		}
	}
	return best
}

// quality answers how much a media type is wanted, from 0 to 1: the weight of
// the most specific range that covers it.
func quality(accept []string, offer string) float64 {
	major, _, _ := strings.Cut(offer, "/")
	q, specific := 0.0, 0
	for _, line := range accept {
		for r := range strings.SplitSeq(line, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(r))
			if err != nil {
				continue
			}
			rank := map[string]int{"*/*": 1, major + "/*": 2, offer: 3}[name]
			if rank <= specific {
				continue
			}
			weight := 1.0
			if text, ok := params["q"]; ok {
				if weight, err = strconv.ParseFloat(text, 64); err != nil || !(weight >= 0 && weight <= 1) {
					continue
				}
			}
			q, specific = weight, rank
		}
	}
	return q
}
