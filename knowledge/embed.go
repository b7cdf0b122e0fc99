package knowledge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
)

// DefaultEmbedTimeout bounds one call of an embedding model. Who embeds documents has a
// minute for a turn.
const DefaultEmbedTimeout = 45 * time.Second

// EmbeddingCall is one call of an embedding model, and how it ended.
type EmbeddingCall struct {
	Owner
	Purpose  llm.Purpose
	Texts    int
	Usage    llm.Usage
	Begin    time.Time
	Duration time.Duration
	Cut      int   // texts that were longer than the model takes, before the call or because of its answer
	Err      error // nil = vectors came
}

// EmbedOptions say how texts are embedded.
type EmbedOptions struct {
	Dimensions int // that the vectors must have; 0 = whatever the model's are
	Purpose    llm.Purpose
	// Cut shortens texts that are longer than the model takes; otherwise the
	// provider's refusal is the error.
	Cut   bool
	Retry llm.RetryPolicy
}

// Embedded is what became of texts.
type Embedded struct {
	Vectors [][]float32 // of each text, in order
	Usage   llm.Usage   // of all calls
	Calls   int
	Cut     []int // the numbers of the texts that were shortened
}

// Measure answers how long the vectors of a model are, by embedding one word. dimensions
// asks for shorter ones; 0 is the model's own length.
func Measure(ctx context.Context, e Embedding, dimensions int, retry llm.RetryPolicy) (int, error) {
	// Not as a document, whose vector may be known: the model is to be called.
	got, err := EmbedTexts(ctx, e, []string{"word"}, EmbedOptions{Dimensions: dimensions, Retry: retry})
	if err != nil {
		return 0, err
	}
	return len(got.Vectors[0]), nil
}

// Embed answers a vector of the length 1 for each text of a document, as EmbedTexts
// does, and cuts what is too long. Dimensions 0 is whatever the model's is.
func Embed(ctx context.Context, e Embedding, texts []string, dimensions int, retry llm.RetryPolicy) ([][]float32, error) {
	got, err := embedDocument(ctx, e, texts, dimensions, retry)
	return got.Vectors, err
}

// embedDocument is Embed, and tells which texts were cut.
func embedDocument(ctx context.Context, e Embedding, texts []string, dimensions int, retry llm.RetryPolicy) (Embedded, error) {
	got, err := EmbedTexts(ctx, e, texts, EmbedOptions{Dimensions: dimensions, Purpose: llm.PurposeDocument, Cut: true, Retry: retry})
	if err != nil {
		return Embedded{}, err
	}
	for _, v := range got.Vectors {
		unit(v)
	}
	return got, nil
}

// EmbedTexts answers a vector for each text, by as few calls as the model takes:
// the same text is sent once, a call has as many texts and tokens as the model
// allows, and one that is refused is made in halves. What failed for a passing
// reason is tried again. Vectors are checked: all of the wanted length, every number
// finite.
func EmbedTexts(ctx context.Context, e Embedding, texts []string, o EmbedOptions) (Embedded, error) {
	b := batches{e: e, o: o}
	places := make(map[string]int, len(texts))
	for _, text := range texts {
		if _, known := places[text]; !known {
			places[text] = len(b.texts)
			b.texts = append(b.texts, text)
		}
	}
	b.vectors, b.cut = make([][]float32, len(b.texts)), make([]bool, len(b.texts))
	b.whole = slices.Clone(b.texts)
	b.shorten()
	if err := b.share(ctx); err != nil {
		return Embedded{}, err
	}
	out := Embedded{Vectors: make([][]float32, len(texts)), Usage: b.usage, Calls: b.calls}
	for i, text := range texts {
		place := places[text]
		out.Vectors[i] = b.vectors[place]
		if len(b.texts) < len(texts) || b.shared {
			out.Vectors[i] = slices.Clone(b.vectors[place]) // nobody else's is changed with it
		}
		if b.cut[place] {
			out.Cut = append(out.Cut, i)
		}
	}
	return out, nil
}

// batches embeds texts that differ.
type batches struct {
	e       Embedding
	o       EmbedOptions
	texts   []string
	whole   []string // the same before any was cut
	vectors [][]float32
	cut     []bool
	noted   int // cuts that no call has been told with yet
	shared  bool
	usage   llm.Usage
	calls   int
}

// all embeds the texts of some places, by as few calls as there can be.
func (b *batches) all(ctx context.Context, places []int) error {
	part := batches{e: b.e, o: b.o, noted: b.noted}
	for _, i := range places {
		part.texts = append(part.texts, b.texts[i])
	}
	part.vectors, part.cut = make([][]float32, len(places)), make([]bool, len(places))
	defer func() {
		b.noted, b.calls = part.noted, b.calls+part.calls
		b.usage.InputTokens += part.usage.InputTokens
		b.usage.OutputTokens += part.usage.OutputTokens
		b.usage.Estimated = b.usage.Estimated || part.usage.Estimated
	}()
	if err := part.between(ctx, 0, len(part.texts)); err != nil {
		return err
	}
	for k, i := range places {
		b.vectors[i], b.cut[i] = part.vectors[k], b.cut[i] || part.cut[k]
	}
	return nil
}

// between embeds the texts from one to another.
func (b *batches) between(ctx context.Context, from, to int) error {
	for from < to {
		end := min(b.end(from), to)
		if err := b.embed(ctx, from, end); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// share embeds the texts, of documents those that nobody embeds at this moment or has
// embedded just now: what two documents have in common is sent once, though both are
// processed at a time.
func (b *batches) share(ctx context.Context) error {
	if b.o.Purpose != llm.PurposeDocument || b.e.State == nil {
		places := make([]int, len(b.texts))
		for i := range places {
			places[i] = i
		}
		return b.all(ctx, places)
	}
	b.shared = true
	for {
		mine, others := b.e.State.claim(b)
		if len(mine) == 0 && others == nil {
			return nil
		}
		if len(mine) > 0 {
			if err := b.claimed(ctx, mine); err != nil {
				return err
			}
			continue
		}
		select {
		case <-others:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// claimed embeds texts that others may wait for.
func (b *batches) claimed(ctx context.Context, mine []int) error {
	defer b.e.State.settle(b, mine)
	return b.all(ctx, mine)
}

// shorten cuts the texts that are known to be too long.
func (b *batches) shorten() {
	if !b.o.Cut || b.e.MaxTokens <= 0 || b.e.Count == nil {
		return
	}
	for i, text := range b.texts {
		if b.e.Count(text) > int64(b.e.MaxTokens) {
			b.shortened(i, cutTokens(text, b.e.MaxTokens, b.e.Count))
		}
	}
}

func (b *batches) shortened(i int, text string) {
	b.texts[i], b.cut[i] = text, true
	b.noted++
}

// end answers where the batch ends that begins at a text.
func (b *batches) end(from int) int {
	most := max(b.e.State.batch(b.e.Batch), 1)
	to := min(len(b.texts), from+most)
	if b.e.BatchTokens <= 0 || b.e.Count == nil {
		return to
	}
	tokens := int64(0)
	for i := from; i < to; i++ {
		if tokens += b.e.Count(b.texts[i]); tokens > int64(b.e.BatchTokens) && i > from {
			return i
		}
	}
	return to
}

// embed makes the vectors of some texts. A call that the provider refuses is made
// in halves, so that a limit nobody knew of, or one text that it does not take, does
// not stand in the way of the others; one that it takes too long for, in smaller ones.
func (b *batches) embed(ctx context.Context, from, to int) error {
	vectors, err := b.attempt(ctx, b.texts[from:to])
	for tries := 0; err != nil && to-from == 1 && b.o.Cut && tooLong(err) && tries < maxCuts; tries++ {
		text, ok := cutHalf(b.texts[from])
		if !ok {
			break
		}
		b.shortened(from, text)
		vectors, err = b.attempt(ctx, b.texts[from:to])
	}
	switch {
	case err == nil:
		copy(b.vectors[from:to], vectors)
		return nil
	case to-from > 1 && b.late(err):
		return b.between(ctx, from, to) // in calls of fewer texts by now
	case to-from == 1 || !refused(err):
		return err
	}
	middle, calls := (from+to)/2, b.calls
	for _, half := range [][2]int{{from, middle}, {middle, to}} {
		if err := b.embed(ctx, half[0], half[1]); err != nil {
			return err
		}
	}
	if b.calls == calls+2 {
		b.e.State.limit(to - middle) // both halves went through: it was their number
	}
	return nil
}

// maxCuts bounds how often a text is halved: 2^10 times what a model takes is more
// than any chunk has.
const maxCuts = 10

// tooLong tells whether a provider says that a text is too long.
func tooLong(err error) bool {
	e, ok := errors.AsType[*llm.Error](err)
	return ok && (e.Code == llm.CodeContextTooLong || e.Status == http.StatusRequestEntityTooLarge)
}

// refused tells whether fewer texts may be taken.
func refused(err error) bool {
	e, ok := errors.AsType[*llm.Error](err)
	return ok && (e.Code == llm.CodeContextTooLong || e.Code == llm.CodeInvalidRequest || e.Code == llm.CodeResponseTooLarge)
}

// late tells whether texts of documents took longer than a call may.
func (b *batches) late(err error) bool { return b.paced() && errors.Is(err, errLate) }

// paced tells whether calls have as many texts as are answered in time. A search has less
// patience, and few texts.
func (b *batches) paced() bool { return b.o.Purpose == llm.PurposeDocument && b.e.State != nil }

var errLate = fmt.Errorf("the embedding model did not answer in time: %w", context.DeadlineExceeded)

// attempt makes a call, and makes it again where the failure may pass.
func (b *batches) attempt(ctx context.Context, texts []string) ([][]float32, error) {
	paid := true // of the budget for retries; nothing is due before a call was made
	for try := 1; ; try++ {
		calls := b.calls
		vectors, err := b.call(ctx, texts, try == 1)
		if err == nil {
			return vectors, nil
		}
		delay, again := b.o.Retry.Next(try, err)
		if !again || b.late(err) && len(texts) > 1 {
			return nil, err
		}
		// What the provider asked for by naming a time costs nothing, nor does another
		// try of a call that was not made.
		if b.calls > calls {
			e, _ := errors.AsType[*llm.Error](err)
			paid = e != nil && e.Code == llm.CodeRateLimited && e.RetryAfter > 0
		}
		if !paid {
			if paid = b.e.State.takeRetry(); !paid {
				return nil, err
			}
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// call makes one call. Some servers refuse to be told the length of the vectors that
// their model has: they are asked without it, and what comes is measured.
func (b *batches) call(ctx context.Context, texts []string, first bool) ([][]float32, error) {
	told := b.o.Dimensions
	if told == b.e.Dimensions || b.e.State.untold() {
		told = 0
	}
	vectors, err := b.send(ctx, texts, told, first)
	if e, ok := errors.AsType[*llm.Error](err); ok && told > 0 && e.Code == llm.CodeInvalidRequest && !b.e.State.takes() {
		if measured, err := b.send(ctx, texts, 0, false); err == nil {
			err := checkVectors(measured, len(texts), b.o.Dimensions)
			b.e.State.learn(err == nil, false)
			return measured, err
		}
	}
	if err != nil {
		return nil, err
	}
	if err := checkVectors(vectors, len(texts), b.o.Dimensions); err != nil {
		return nil, err
	}
	if told > 0 {
		b.e.State.learn(false, true)
	}
	return vectors, nil
}

// send sends one request.
func (b *batches) send(ctx context.Context, texts []string, dimensions int, first bool) ([][]float32, error) {
	done, open := b.e.State.enter(first)
	if open != nil {
		return nil, open
	}
	timeout := b.e.Timeout
	if timeout <= 0 {
		timeout = DefaultEmbedTimeout
	}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begin := time.Now()
	vectors, usage, err := llm.EmbedFor(within, b.e.Embedder, b.o.Purpose, b.e.Model, texts, dimensions)
	if err != nil && ctx.Err() == nil && within.Err() != nil {
		err = llm.NewError(llm.CodeTimeoutFirstByte, errLate) // worth another try
	}
	done(err)
	if b.paced() {
		b.e.State.paced(len(texts), time.Since(begin), err != nil && errors.Is(within.Err(), context.DeadlineExceeded))
	}
	b.calls++
	b.usage.InputTokens += usage.InputTokens
	b.usage.OutputTokens += usage.OutputTokens
	b.usage.Estimated = b.usage.Estimated || usage.Estimated
	if b.e.Observe != nil {
		b.e.Observe(EmbeddingCall{Owner: ownerOf(ctx), Begin: begin, Purpose: b.o.Purpose, Texts: len(texts), Usage: usage, Duration: time.Since(begin), Cut: b.noted, Err: err})
	}
	b.noted = 0
	return vectors, err
}

func checkVectors(vectors [][]float32, count, dimensions int) error {
	if len(vectors) != count {
		return llm.NewError(llm.CodeMalformedResponse, fmt.Errorf("%d vectors for %d texts", len(vectors), count))
	}
	for _, v := range vectors {
		if dimensions > 0 && len(v) != dimensions || len(v) != len(vectors[0]) {
			return llm.NewError(llm.CodeMalformedResponse, fmt.Errorf("%w: %d numbers", ErrDimensions, len(v)))
		}
		for _, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return llm.NewError(llm.CodeMalformedResponse, errors.New("a vector is not finite"))
			}
		}
	}
	return nil
}

// cutTokens answers the longest start of a text that has at most so many tokens.
func cutTokens(text string, most int, count func(string) int64) string {
	low, high := 0, len(text)
	for low < high {
		middle := (low + high + 1) / 2
		if count(wholeRunes(text, middle)) <= int64(most) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	if cut := wholeRunes(text, low); cut != "" {
		return cut
	}
	_, size := utf8.DecodeRuneInString(text)
	return text[:size]
}

// cutHalf answers the first half of a text, false when there is none.
func cutHalf(text string) (string, bool) {
	half := wholeRunes(text, len(text)/2)
	return half, half != ""
}

// wholeRunes answers the first n bytes of a text, without a part of a character.
func wholeRunes(text string, n int) string {
	if n >= len(text) {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// length answers the length of a vector.
func length(v []float32) float64 {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	return math.Sqrt(square)
}

// unit brings a vector to the length 1, which changes nothing of what is near to
// what, and keeps its numbers within those that are stored. A vector of zeros has no
// direction, so that nothing can be said to be near to it: it becomes one whose
// numbers are all the same, which is near to no text's.
func unit(v []float32) {
	n := length(v)
	const dust = 1e-3
	switch {
	case math.Abs(n-1) < dust:
	case n == 0:
		for i := range v {
			v[i] = float32(1 / math.Sqrt(float64(len(v))))
		}
	default:
		for i, x := range v {
			v[i] = float32(float64(x) / n)
		}
	}
}
