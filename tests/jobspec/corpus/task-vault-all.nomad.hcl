job "task-vault-all" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      vault {
        role                   = "app"
        policies               = ["a", "b"]
        namespace              = "ns1"
        cluster                = "default"
        env                    = false
        disable_file           = true
        change_mode            = "signal"
        change_signal          = "sigusr1"
        allow_token_expiration = true
      }
    }
  }
}
