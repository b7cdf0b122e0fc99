package chain_test

import (
	"errors"
	"fmt"

	"github.com/chainstream/chainstream/chain"
)

func ExampleParse() {
	_, err := chain.Parse([]byte(`
name: brief
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, model: offline/echo, content: "Outline ${topik}"}
  - {name: Brief, model: echo, content: "Write up ${outline}", max_tokens: 100}
`), chain.FormatYAML)

	if problems, ok := errors.AsType[chain.Problems](err); ok {
		for _, p := range problems {
			fmt.Println(p.Line, p.Pointer, p.Detail)
		}
	}
	// Output:
	// 6 /prompts/0/content ${topik}: "topik" is no input and no earlier prompt; there is topic
	// 7 /prompts/1/max_tokens there is no field "max_tokens" here, it is called maxTokens
	// 7 /prompts/1/model "echo" is no model; write provider/model, such as openai/gpt-4.1-mini
}

func ExampleChain_Render() {
	c, err := chain.Parse([]byte(`
name: brief
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, model: offline/echo, content: "Outline ${topic}"}
  - {name: Brief, model: offline/echo, content: "Write up {{outline.title}} about ${topic}"}
`), chain.FormatYAML)
	if err != nil {
		fmt.Println(err)
		return
	}
	rendered, err := c.Render(1, chain.State{
		Inputs:  map[string]any{"topic": "tea, not ${outline}"},
		Outputs: map[int]string{0: `{"title": "Leaves"}`},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(rendered.User)
	fmt.Println(rendered.Sources)
	// Output:
	// Write up Leaves about tea, not ${outline}
	// [0]
}

func ExampleChain_Plan() {
	c, err := chain.Parse([]byte(`
name: drafts
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: Outline}
  - {name: Draft A, position: 2, model: offline/echo, content: "Expand ${outline}"}
  - {name: Draft B, position: 2, model: offline/echo, content: "Contrast ${outline}"}
  - {name: Merge, position: 3, model: offline/echo, content: "Merge ${draft-a} and ${draft-b}"}
`), chain.FormatYAML)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Plan())
	// Output: [[0] [1 2] [3]]
}
