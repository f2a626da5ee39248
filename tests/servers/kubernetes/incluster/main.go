// Lives as a Pod does: client-go's own in-cluster loading, one request after the other until standard input ends.
// Each line of its output is the namespace, the user and the token's id, or what went wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	authentication "k8s.io/api/authentication/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	config, err := rest.InClusterConfig()
	if err != nil {
		fmt.Println("FAILED in-cluster:", err)
		os.Exit(1)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fmt.Println("FAILED client:", err)
		os.Exit(1)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	loading := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return
		case <-time.After(50 * time.Millisecond):
		}
		namespace, _, err := loading.Namespace()
		if err != nil {
			fmt.Println("FAILED namespace:", err)
			continue
		}
		review, err := client.AuthenticationV1().SelfSubjectReviews().
			Create(context.Background(), &authentication.SelfSubjectReview{}, meta.CreateOptions{})
		if err != nil {
			fmt.Println("FAILED request:", err)
			continue
		}
		user := review.Status.UserInfo
		fmt.Println(namespace, user.Username, user.Extra["authentication.kubernetes.io/credential-id"])
	}
}
