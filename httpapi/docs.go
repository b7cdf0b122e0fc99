package httpapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/chainstream/chainstream/events"
)

// openapiYAML describes the API: OpenAPI 3.1, for programs as it is and for
// people as a page.
//
//go:embed openapi.yaml
var openapiYAML []byte

//go:embed docs.html.tmpl
var docsTemplate string

//go:embed docs.css
var docsStyle string

// documentation is the description of the API for programs and for people.
type documentation struct {
	openapi asset
	page    asset
}

// The parts of an OpenAPI document that the page shows.
type (
	openapiDocument struct {
		OpenAPI string         `yaml:"openapi"`
		Info    map[string]any `yaml:"info"`
		Tags    []struct {
			Name        string `yaml:"name"`
			Description string `yaml:"description"`
		} `yaml:"tags"`
		Paths      map[string]pathItem `yaml:"paths"`
		Components struct {
			Parameters    map[string]parameter    `yaml:"parameters"`
			RequestBodies map[string]openapiBody  `yaml:"requestBodies"`
			Responses     map[string]openapiReply `yaml:"responses"`
			Schemas       yaml.MapSlice           `yaml:"schemas"`
		} `yaml:"components"`
	}
	pathItem struct {
		Parameters []parameter `yaml:"parameters"`
		Get        *operation  `yaml:"get"`
		Post       *operation  `yaml:"post"`
		Put        *operation  `yaml:"put"`
		Delete     *operation  `yaml:"delete"`
	}
	operation struct {
		OperationID string                  `yaml:"operationId"`
		Tags        []string                `yaml:"tags"`
		Summary     string                  `yaml:"summary"`
		Description string                  `yaml:"description"`
		Parameters  []parameter             `yaml:"parameters"`
		RequestBody *openapiBody            `yaml:"requestBody"`
		Responses   map[string]openapiReply `yaml:"responses"`
	}
	parameter struct {
		Ref         string         `yaml:"$ref"`
		Name        string         `yaml:"name"`
		In          string         `yaml:"in"`
		Required    bool           `yaml:"required"`
		Description string         `yaml:"description"`
		Schema      map[string]any `yaml:"schema"`
	}
	openapiBody struct {
		Ref         string                  `yaml:"$ref"`
		Description string                  `yaml:"description"`
		Content     map[string]openapiMedia `yaml:"content"`
	}
	openapiReply struct {
		Ref         string                  `yaml:"$ref"`
		Description string                  `yaml:"description"`
		Content     map[string]openapiMedia `yaml:"content"`
	}
	openapiMedia struct {
		Schema  map[string]any `yaml:"schema"`
		Example any            `yaml:"example"`
	}
)

// newDocumentation reads the description and renders the page.
func newDocumentation(version string) (documentation, error) {
	var doc openapiDocument
	if err := yaml.Unmarshal(openapiYAML, &doc); err != nil {
		return documentation{}, fmt.Errorf("read the API description: %w", err)
	}
	raw, err := OpenAPI(version)
	if err != nil {
		return documentation{}, err
	}
	page, policy, err := docsPage(&doc, version)
	if err != nil {
		return documentation{}, err
	}
	return documentation{
		openapi: newAsset(raw, mediaTypeJSON, ""),
		page:    newAsset(page, "text/html; charset=utf-8", policy),
	}, nil
}

// OpenAPI answers the description of the API as JSON, with the version of the
// program.
func OpenAPI(version string) ([]byte, error) {
	raw, err := yaml.YAMLToJSON(openapiYAML)
	if err != nil {
		return nil, fmt.Errorf("convert the API description: %w", err)
	}
	var doc map[string]json.RawMessage
	var info map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("convert the API description: %w", err)
	}
	if err := json.Unmarshal(doc["info"], &info); err != nil {
		return nil, fmt.Errorf("read info of the API description: %w", err)
	}
	info["version"] = version
	if doc["info"], err = json.Marshal(info); err != nil {
		return nil, fmt.Errorf("encode info of the API description: %w", err)
	}
	if raw, err = json.Marshal(doc); err != nil {
		return nil, fmt.Errorf("encode the API description: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("encode the API description: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// What the template of the page shows.
type (
	docsView struct {
		Version string
		About   string
		Style   template.CSS
		Groups  []docsGroup
		Schemas []docsSchema
		Events  []events.Type
		Kinds   []docsKind
	}
	docsGroup struct {
		Name, Description string
		Operations        []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary, Description string
		Parameters                             []docsParameter
		Body                                   []docsMedia
		BodyNote                               string
		Replies                                []docsReply
	}
	docsParameter struct {
		Name, In, Description, Type string
		Required                    bool
	}
	docsMedia struct{ Type, Schema, Example string }
	docsReply struct {
		Status, Description string
		Media               []docsMedia
	}
	docsSchema struct{ Name, Text string }
	docsKind   struct {
		Code, Title string
		Status      int
	}
)

// docsPage renders the description as one page without scripts. Its style
// stands in the page, and the policy allows exactly that.
func docsPage(doc *openapiDocument, version string) (page []byte, policy string, err error) {
	order, err := pathOrder()
	if err != nil {
		return nil, "", err
	}
	about, _ := doc.Info["description"].(string)
	v := docsView{Version: version, About: about, Style: template.CSS(docsStyle), Events: events.Types()} //nolint:gosec // our own file
	for _, t := range doc.Tags {
		g := docsGroup{Name: t.Name, Description: t.Description}
		for _, path := range order {
			item := doc.Paths[path]
			for _, m := range []struct {
				method string
				op     *operation
			}{{"POST", item.Post}, {"GET", item.Get}, {"PUT", item.Put}, {"DELETE", item.Delete}} {
				if m.op != nil && slices.Contains(m.op.Tags, t.Name) {
					g.Operations = append(g.Operations, doc.operationView(m.method, path, item, m.op))
				}
			}
		}
		v.Groups = append(v.Groups, g)
	}
	for _, s := range doc.Components.Schemas {
		text, err := yaml.Marshal(s.Value)
		if err != nil {
			return nil, "", fmt.Errorf("render schema %v: %w", s.Key, err)
		}
		v.Schemas = append(v.Schemas, docsSchema{Name: fmt.Sprint(s.Key), Text: string(text)})
	}
	for _, k := range kinds() {
		v.Kinds = append(v.Kinds, docsKind{Code: k.code, Title: k.title, Status: k.status})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"prose": prose}).Parse(docsTemplate)
	if err != nil {
		return nil, "", fmt.Errorf("read the page of the API description: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, "", fmt.Errorf("render the API description: %w", err)
	}
	sum := sha256.Sum256([]byte(docsStyle))
	policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return out.Bytes(), policy, nil
}

// pathOrder answers the paths in the order of the source.
func pathOrder() ([]string, error) {
	var doc struct {
		Paths yaml.MapSlice `yaml:"paths"`
	}
	if err := yaml.Unmarshal(openapiYAML, &doc); err != nil {
		return nil, fmt.Errorf("read the API description: %w", err)
	}
	order := make([]string, len(doc.Paths))
	for i, p := range doc.Paths {
		order[i] = fmt.Sprint(p.Key)
	}
	return order, nil
}

func (d *openapiDocument) operationView(method, path string, item pathItem, op *operation) docsOperation {
	v := docsOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Description: op.Description}
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		if p.Ref != "" {
			p = d.Components.Parameters[lastSegment(p.Ref)]
		}
		v.Parameters = append(v.Parameters, docsParameter{
			Name: p.Name, In: p.In, Description: p.Description, Required: p.Required, Type: schemaName(p.Schema),
		})
	}
	if b := op.RequestBody; b != nil {
		body := *b
		if body.Ref != "" {
			body = d.Components.RequestBodies[lastSegment(body.Ref)]
		}
		v.BodyNote, v.Body = body.Description, mediaViews(body.Content)
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		if status == "default" {
			continue
		}
		r := op.Responses[status]
		if r.Ref != "" {
			r.Description = cmp.Or(r.Description, d.Components.Responses[lastSegment(r.Ref)].Description)
		}
		v.Replies = append(v.Replies, docsReply{Status: status, Description: r.Description, Media: mediaViews(r.Content)})
	}
	return v
}

func mediaViews(content map[string]openapiMedia) []docsMedia {
	var list []docsMedia
	for _, name := range slices.Sorted(maps.Keys(content)) {
		m := content[name]
		view := docsMedia{Type: name}
		if ref, ok := m.Schema["$ref"].(string); ok {
			view.Schema = lastSegment(ref)
		}
		switch e := m.Example.(type) {
		case nil:
		case string:
			view.Example = e
		default:
			if raw, err := json.MarshalIndent(e, "", "  "); err == nil {
				view.Example = string(raw)
			}
		}
		list = append(list, view)
	}
	return list
}

func lastSegment(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// schemaName says in a word or two what a parameter takes.
func schemaName(schema map[string]any) string {
	if ref, ok := schema["$ref"].(string); ok {
		return lastSegment(ref)
	}
	if list, ok := schema["enum"].([]any); ok {
		words := make([]string, len(list))
		for i, e := range list {
			words[i] = fmt.Sprint(e)
		}
		return strings.Join(words, ", ")
	}
	text, _ := schema["type"].(string)
	if format, ok := schema["format"].(string); ok && format != "int64" {
		text = format
	}
	if d, ok := schema["default"]; ok {
		text += fmt.Sprintf(", %v by default", d)
	}
	return text
}

// prose renders paragraphs and `code` of a description.
func prose(text string) template.HTML {
	var b strings.Builder
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		b.WriteString("<p>")
		for i, part := range strings.Split(p, "`") {
			escaped := template.HTMLEscapeString(part)
			if i%2 == 1 {
				escaped = "<code>" + escaped + "</code>"
			}
			b.WriteString(escaped)
		}
		b.WriteString("</p>\n")
	}
	return template.HTML(b.String()) //nolint:gosec // every part is escaped above
}
