job "task-template-all" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      template {
        source               = "local/in.tpl"
        destination          = "secrets/out.conf"
        change_mode          = "script"
        env                  = false
        splay                = "30s"
        perms                = "600"
        uid                  = 1000
        gid                  = 1001
        left_delimiter       = "[["
        right_delimiter      = "]]"
        error_on_missing_key = true
        once                 = true
        vault_grace          = "15s"
        change_script {
          command       = "/local/reload.sh"
          args          = ["-q", "now"]
          timeout       = "20s"
          fail_on_error = true
        }
        wait {
          min = "2s"
          max = "10s"
        }
      }
    }
  }
}
