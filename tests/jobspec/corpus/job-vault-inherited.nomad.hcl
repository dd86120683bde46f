job "job-vault-inherited" {
  vault {
    policies = ["read"]
  }

  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }


    }
  }
}
