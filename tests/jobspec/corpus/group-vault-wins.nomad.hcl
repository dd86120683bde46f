job "group-vault-wins" {
  vault {
    role = "job"
  }

  group "app" {
    vault {
      role = "group"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }


    }
  }
}
