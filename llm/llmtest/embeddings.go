package llmtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
)

// Dimensions is the length of the vectors of embeddings, unless a request asks
// for another.
const Dimensions = 16

// maxDimensions bounds what a request may ask for.
const maxDimensions = 16384

// Embedding returns the vector that the fake gives to a text: always the same
// one, of length 1.
func Embedding(text string, dimensions int) []float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // a hash takes everything
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	vector := make([]float64, dimensions)
	sum := 0.0
	for i := range vector {
		vector[i] = random.NormFloat64()
		sum += vector[i] * vector[i]
	}
	for i := range vector {
		vector[i] /= math.Sqrt(sum)
	}
	return vector
}

// EmbedRequest is a call for embeddings as the fake understood it.
type EmbedRequest struct {
	Wire       string // OpenAI or Gemini
	Model      string
	Texts      []string
	Dimensions int    // 0 = not asked for
	TaskType   string // Gemini's word for the purpose, of all texts
}

// EmbedAnswer is what would be answered; an EmbedReply may change it.
type EmbedAnswer struct {
	// Indexes and Vectors are written as they are; without Indexes the items have
	// none. Gemini's format never has.
	Indexes []any
	Vectors []any
	// InputTokens is the usage; 0 = none is sent.
	InputTokens int64
}

// EmbedReply is how a call for embeddings is answered. The zero value is the usual
// answer.
type EmbedReply struct {
	Status  int      // another than 200 is an error of the kind that belongs to it
	Kind    string   // of the error; empty = by the status
	Message string   // of the error
	Headers []string // names and values in turn
	Body    *string  // in place of the answer or the error
	Change  func(*EmbedAnswer)
	Cut     bool // only the first half of the body is sent, and the connection broken off
	Half    bool // only the first half of the body is sent, as if it were all
	Stall   bool // nothing is answered until the client leaves
	Reset   bool // the connection is closed before any answer
}

// ScriptEmbeddings queues replies to calls for embeddings of a model. Each call
// takes one; the last one stays for all further calls. Models without a script get
// the usual answer.
func (f *Fake) ScriptEmbeddings(model string, replies ...EmbedReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.embeddings[model] = append(f.embeddings[model], replies...)
}

// OtherwiseEmbed decides how calls without a script are answered.
func (f *Fake) OtherwiseEmbed(reply func(EmbedRequest) EmbedReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.embedOtherwise = reply
}

// EmbedCalls returns all calls for embeddings so far, in the order of their arrival.
func (f *Fake) EmbedCalls() []EmbedRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]EmbedRequest(nil), f.embedCalls...)
}

// embedWire finds the format of a path for embeddings, "" when it is none.
func embedWire(path string) (name string, w wire) {
	switch {
	case strings.HasSuffix(path, "/embeddings"):
		return OpenAI, openAIWire{}
	case strings.HasSuffix(path, ":batchEmbedContents"):
		return Gemini, geminiWire{}
	}
	return "", nil
}

// readEmbedRequest reads a call in the format of its path.
func readEmbedRequest(name, path string, body []byte) (EmbedRequest, error) {
	req := EmbedRequest{Wire: name}
	if name == OpenAI {
		var got struct {
			Model      string   `json:"model"`
			Input      textList `json:"input"` // one text or many
			Dimensions int      `json:"dimensions"`
		}
		err := json.Unmarshal(body, &got)
		req.Model, req.Texts, req.Dimensions = got.Model, got.Input, got.Dimensions
		return req, err
	}
	_, model, _ := strings.Cut(path, "/models/")
	req.Model = strings.TrimSuffix(model, ":batchEmbedContents")
	var got struct {
		Requests []struct {
			Model      string `json:"model"`
			TaskType   string `json:"taskType"`
			Dimensions int    `json:"outputDimensionality"`
			Content    struct {
				Parts []struct {
					Text string `json:"text"`
				} `json:"parts"`
			} `json:"content"`
		} `json:"requests"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return req, err
	}
	for _, r := range got.Requests {
		if r.Model != "models/"+req.Model {
			return req, fmt.Errorf("the model %q of a request is not that of the path", r.Model)
		}
		var text strings.Builder
		for _, p := range r.Content.Parts {
			text.WriteString(p.Text)
		}
		req.Texts = append(req.Texts, text.String())
		req.TaskType, req.Dimensions = r.TaskType, r.Dimensions
	}
	return req, nil
}

// body writes an answer in the format of the call.
func (a EmbedAnswer) body(req EmbedRequest) []byte {
	items := make([]object, 0, len(a.Vectors))
	for i, v := range a.Vectors {
		item := object{"values": v}
		if req.Wire == OpenAI {
			item = object{"object": "embedding", "embedding": v}
			if i < len(a.Indexes) {
				item["index"] = a.Indexes[i]
			}
		}
		items = append(items, item)
	}
	if req.Wire == Gemini {
		answer := object{"embeddings": items}
		if a.InputTokens != 0 {
			answer["usageMetadata"] = object{"promptTokenCount": a.InputTokens, "totalTokenCount": a.InputTokens}
		}
		return encode(answer)
	}
	answer := object{"object": "list", "model": req.Model, "data": items}
	if a.InputTokens != 0 {
		answer["usage"] = object{"prompt_tokens": a.InputTokens, "total_tokens": a.InputTokens}
	}
	return encode(answer)
}

// nextEmbedReply notes a call and takes the reply to it.
func (f *Fake) nextEmbedReply(req EmbedRequest) (EmbedReply, func(*Call)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch == nil {
		f.embedCalls = append(f.embedCalls, req)
	}
	queue := f.embeddings[req.Model]
	switch {
	case len(queue) == 0 && f.embedOtherwise == nil:
		return EmbedReply{}, f.watch
	case len(queue) == 0:
		return f.embedOtherwise(req), f.watch
	case len(queue) > 1:
		f.embeddings[req.Model] = queue[1:]
	}
	return queue[0], f.watch
}

func (f *Fake) serveEmbeddings(w http.ResponseWriter, r *http.Request, name string, wire wire) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return // the client is gone
	}
	req, err := readEmbedRequest(name, r.URL.Path, body)
	if err != nil {
		writeBody(w, http.StatusBadRequest, wire.failure(http.StatusBadRequest, KindInvalid, err.Error()))
		return
	}
	reply, watch := f.nextEmbedReply(req)
	if watch != nil {
		call := &Call{Body: body, Header: r.Header.Clone(), Path: r.URL.Path, Note: fmt.Sprintf("%d texts", len(req.Texts))}
		call.Request.Model, call.Request.Wire = req.Model, req.Wire
		if reply.Status != 0 && reply.Status != http.StatusOK {
			call.Note = fmt.Sprintf("%d texts, status %d", len(req.Texts), reply.Status)
		}
		defer watch(call)
	}
	reply.play(w, r, req, wire, f.closed)
}

// play answers a call.
func (e EmbedReply) play(w http.ResponseWriter, r *http.Request, req EmbedRequest, wire wire, closed <-chan struct{}) {
	switch {
	case e.Stall:
		select {
		case <-r.Context().Done():
		case <-closed:
		}
		return
	case e.Reset:
		panic(http.ErrAbortHandler)
	}
	status := http.StatusOK
	if e.Status != 0 {
		status = e.Status
	}
	var body []byte
	switch {
	case e.Body != nil:
		body = []byte(*e.Body)
	case status != http.StatusOK:
		kind, message := e.Kind, e.Message
		if kind == "" {
			kind = statusKind(status)
		}
		if message == "" {
			message = "scripted error"
		}
		body = wire.failure(status, kind, message)
	default:
		answer := embedAnswer(req)
		if e.Change != nil {
			e.Change(&answer)
		}
		body = answer.body(req)
	}
	for i := 0; i+1 < len(e.Headers); i += 2 {
		w.Header().Set(e.Headers[i], e.Headers[i+1])
	}
	switch {
	case e.Half:
		writeBody(w, status, body[:len(body)/2])
	case e.Cut:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		writeBody(w, status, body)
	}
}

// embedAnswer is the usual answer.
func embedAnswer(req EmbedRequest) EmbedAnswer {
	dimensions := req.Dimensions
	if dimensions <= 0 || dimensions > maxDimensions {
		dimensions = Dimensions
	}
	var a EmbedAnswer
	for i, text := range req.Texts {
		a.Indexes = append(a.Indexes, i)
		a.Vectors = append(a.Vectors, Embedding(text, dimensions))
		a.InputTokens += int64(len(strings.Fields(text)))
	}
	return a
}

// serveRerank puts documents into an order, as the rerank APIs of several vendors do:
// by how many words of the query they have.
func (f *Fake) serveRerank(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Query     string   `json:"query"`
		Documents []string `json:"documents"`
		TopN      int      `json:"top_n"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil {
		writeBody(w, http.StatusBadRequest, openAIWire{}.failure(http.StatusBadRequest, KindInvalid, err.Error()))
		return
	}
	words := strings.Fields(strings.ToLower(req.Query))
	type result struct {
		Index int     `json:"index"`
		Score float64 `json:"relevance_score"`
	}
	results := make([]result, len(req.Documents))
	for i, d := range req.Documents {
		results[i].Index = i
		for _, word := range words {
			if strings.Contains(strings.ToLower(d), word) {
				results[i].Score += 1 / float64(len(words))
			}
		}
		results[i].Score = min(results[i].Score, 1)
	}
	slices.SortStableFunc(results, func(a, b result) int { return cmp.Compare(b.Score, a.Score) })
	if req.TopN > 0 && req.TopN < len(results) {
		results = results[:req.TopN]
	}
	writeBody(w, http.StatusOK, encode(object{"results": results}))
}
