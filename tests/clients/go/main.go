// Checks of Go clients against a keyferry that runs: one line for each check of
// each client, `ok CLIENT VERSION CHECK` or `failed CLIENT VERSION CHECK: why`.
// Exits with 0 only if nothing failed. Every wait has an end: CHECK_SECONDS_MAX
// for a check, WAIT_SECONDS_MAX for what a check waits for.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

const (
	checkSecondsMax = 40
	waitSecondsMax  = 15
)

// proxy is what the runner tells us of the keyferry under test.
type proxy struct {
	address string
	control string
	shards  []string
}

// check is one line of the output.
type check struct {
	name string
	run  func(ctx context.Context) error
}

func main() {
	under := proxy{
		address: setting("KEYFERRY_HOST") + ":" + setting("KEYFERRY_PORT"),
		control: setting("KEYFERRY_CONTROL"),
		shards:  strings.Split(setting("KEYFERRY_SHARDS"), ","),
	}
	version := versionOf("github.com/redis/go-redis/v9")
	failed := 0
	for _, protocol := range []int{3, 2} {
		client := newGoRedis(under, protocol)
		for _, check := range client.checks() {
			failed += report(client.name, version, check)
		}
		client.close()
	}
	if failed > 0 {
		os.Exit(1)
	}
}

func report(client, version string, check check) int {
	ctx, cancel := context.WithTimeout(context.Background(), checkSecondsMax*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- check.run(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("not done after %d s", checkSecondsMax)
	}
	if err == nil {
		fmt.Printf("ok %s %s %s\n", client, version, check.name)
		return 0
	}
	why := strings.Join(strings.Fields(err.Error()), " ")
	fmt.Printf("failed %s %s %s: %s\n", client, version, check.name, why)
	return 1
}

func setting(name string) string {
	value := os.Getenv(name)
	if value == "" {
		fmt.Fprintf(os.Stderr, "%s is not set: start this by tests/clients/run\n", name)
		os.Exit(2)
	}
	return value
}

// versionOf tells the version that was built in.
func versionOf(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return strings.TrimPrefix(dependency.Version, "v")
			}
		}
	}
	return "unknown"
}

// ask has the runner do something, such as `restart`, and waits until it is done.
func (p proxy) ask(ctx context.Context, what string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.control+"/"+what, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the runner answered %s to /%s", answer.Status, what)
	}
	return nil
}

// eventually tries until there is no error, at most WAIT_SECONDS_MAX.
func eventually(try func() error) error {
	until := time.Now().Add(waitSecondsMax * time.Second)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("still so after %d s: %w", waitSecondsMax, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// word is different in each run, so that nothing is found of an earlier one.
func word() string {
	bytes := make([]byte, 6)
	rand.Read(bytes)
	return hex.EncodeToString(bytes)
}

// same is an error that names what was expected, unless both are equal.
func same[T comparable](what string, got, expected T) error {
	if got != expected {
		return fmt.Errorf("%s: %v instead of %v", what, got, expected)
	}
	return nil
}
