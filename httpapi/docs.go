package httpapi

// documentation is the description of the API for programs and for people.
type documentation struct {
	openapi asset
	page    asset
}

func newDocumentation(version string) (documentation, error) {
	return documentation{openapi: newAsset([]byte("{}"), mediaTypeJSON, ""), page: newAsset(nil, "text/html; charset=utf-8", "")}, nil
}
